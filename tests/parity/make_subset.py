"""``python -m tests.parity.make_subset SOURCE``: trims a full GameCraft folder to the one committed here.

What goes is whole cases, rows, frames and steps, and headers say what stays; every number is still the reference's.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.parity.rewrite import Draft, write_manifest

TARGET = Path(__file__).resolve().parent / "gamecraft"
_COPIED = ("fp8_linear.safetensors", "keymap_dit.json", "keymap_vae.json", "tiny_weights.json")


def _keep_cases(file: Draft, names: Sequence[str]) -> None:
    """Cases by the name that their tensors begin with."""
    for case in file.header["cases"]:
        if case["name"] not in names:
            file.drop(f"{case['name']}.")
    file.header["cases"] = [case for case in file.header["cases"] if case["name"] in names]


def _camera(file: Draft) -> None:
    """Every action at one speed; a few maps at the smallest size; the trajectory."""
    speeds, frames = [1], [0, 1, 16, 32]
    file.header["speeds"] = [file.header["speeds"][index] for index in speeds]
    for name in ("pose_rows", "rel_c2w"):
        file.tensors[name] = file.tensors[name][:, speeds]
    for name in ("plucker_32x48", "plucker_64x112"):
        file.drop(name)
        del file.header[name]
    for entry in file.header["plucker_full_16x24"]:
        entry["frames"] = frames
    file.tensors["plucker_full_16x24"] = file.tensors["plucker_full_16x24"][:, frames]
    file.drop("uncond_32x48")


def _camera_net(file: Draft) -> None:
    """The pooling over time alone: the encoder works in the transformer's case too."""
    file.drop("sd.", "input", "out")
    del file.header["input"]


def _rope(file: Draft) -> None:
    _keep_cases(file, ["len37_48x80_d2-2-4", "len33_48x80_d2-2-4", "len21_16x48_d16-56-56", "real_len69"])
    for part in ("idx", "cos", "sin"):
        file.tensors[f"real_len69.{part}"] = file.tensors[f"real_len69.{part}"][::4]


def _scheduler(file: Draft) -> None:
    """Tables of all cases, two Euler steps of one."""
    for case in file.header["cases"]:
        case["euler_steps"] = kept = 2 if case["name"] == "n8_s5" else 0
        file.drop(*(f"{case['name']}.x{step + 1}" for step in range(kept, 4)))
        file.drop(*(f"{case['name']}.v{step}" for step in range(kept, 4)))
        if not kept:
            file.drop(f"{case['name']}.x0")


def _dit(file: Draft) -> None:
    """One case: two samples, activations, a cached step. Its camera is the one that the header names."""
    _keep_cases(file, ["t10_b2"])
    file.drop(
        "cam", "freqs9", "freqs18", *(f"t10_b2.mid.{name}" for name in ("img_in", "double_first", "single_first"))
    )


def _vae(file: Draft) -> None:
    """Tiled in space and time; one frame in."""
    file.header["cases"] = [
        case for case in file.header["cases"] if case["mode"] == "both" and case["input"] in ("f1", "full")
    ]
    file.drop("enc.plain.", "dec.plain.", "enc.both.f33.", "dec.both.t1.")
    file.tensors["video_u8"] = file.tensors["video_u8"][:, :, :1]
    for case in file.header["cases"]:
        if case["op"] == "decode":
            kept = [1, 3]
            case["frames"] = [case["frames"][index] for index in kept]
            file.tensors["dec.both.full.frames"] = file.tensors["dec.both.full.frames"][:, :, kept]


def _text(file: Draft) -> None:
    """A usual prompt and an over-long one."""
    rows = [0, 2]
    file.header["prompts"] = [file.header["prompts"][row] for row in rows]
    for name in file.tensors:
        if name.startswith(("llava.", "clip.")):
            file.tensors[name] = file.tensors[name][rows]
    file.drop("encode_prompt.prompt_embeds", "encode_prompt.negative_embeds")


def _image(file: Draft) -> None:
    kept = (0, 4)
    for case in file.header["cases"]:
        if case["i"] not in kept:
            file.drop(f"src{case['i']}", f"out{case['i']}_")
    file.header["cases"] = [case for case in file.header["cases"] if case["i"] in kept]


def _inputs(file: Draft) -> None:
    file.header["cam_frames"], kept = file.header["cam_frames"][-1:], 2
    for index in range(len(file.header["actions"])):
        name = f"cam_chunk{index}_frames"
        file.tensors[name] = file.tensors[name][:, -1:]
        if index >= kept:
            file.drop(name)


def _run(*steps: Sequence[int]) -> Callable[[Draft], None]:
    """A run's first chunks, each with its last stored frame, its result and the model calls of the named steps."""

    def trim(file: Draft) -> None:
        chunks: list[dict[str, Any]] = file.header["chunks"]
        for index in range(len(steps), len(chunks)):
            file.drop(f"chunk{index}.")
        file.header["chunks"] = chunks[: len(steps)]
        for index, (chunk, kept) in enumerate(zip(file.header["chunks"], steps, strict=True)):
            prefix = f"chunk{index}."
            file.drop(*(f"{prefix}step{step}.model_" for step in range(file.header["steps"]) if step not in kept))
            file.drop(*(f"{prefix}step{step}.t" for step in range(file.header["steps"]) if step not in kept))
            file.drop(f"{prefix}video_u8", f"{prefix}step1.latents_before", f"{prefix}last_step.")
            chunk["frames"] = chunk["frames"][-1:]
            file.tensors[f"{prefix}frames"] = file.tensors[f"{prefix}frames"][:, :, -1:]

    return trim


_TRIMMED: dict[str, Callable[[Draft], None]] = {
    "camera": _camera,
    "cameranet": _camera_net,
    "dit": _dit,
    "image_prep": _image,
    "pipeline_deepcache50": _run([11], [11]),
    "pipeline_inputs": _inputs,
    "pipeline_nocfg": _run([0]),
    "pipeline_videostart": _run([]),
    "rope": _rope,
    "scheduler": _scheduler,
    "text_encoders": _text,
    "vae_888": _vae,
}


def build(source: Path, target: Path) -> None:
    """Write the subset of ``source`` to ``target``, replacing what is there."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for stem, trim in _TRIMMED.items():
        draft = Draft.read(source / f"{stem}.safetensors")
        trim(draft)
        draft.write(target / f"{stem}.safetensors")
    weights = [path.relative_to(source) for path in (source / "tiny_weights").rglob("*") if path.is_file()]
    for name in (*map(Path, _COPIED), *weights):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    write_manifest(target)


if __name__ == "__main__":
    build(Path(sys.argv[1]), TARGET)
