"""The runner on folders derived from one that is there: fewer parts, other places, and damage."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from tests.parity.__main__ import COMMITTED, main
from tests.parity.check import run
from tests.parity.discover import GAMECRAFT, cases
from tests.parity.golden import Folder
from tests.parity.rewrite import Draft, write_manifest

SOURCE = COMMITTED / GAMECRAFT
HUNYUAN = COMMITTED / "hunyuanvideo"
FRAMEPACK = COMMITTED / "framepack"
LINE = re.compile(r"(PASS|FAIL) \S+ \S+ \S+")


def copied(target: Path, names: Iterable[str]) -> Path:
    """A folder with some files of the committed one, and a manifest of its own."""
    target.mkdir(parents=True)
    for name in names:
        source = SOURCE / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target / name)
    write_manifest(target)
    return target


def changed(folder: Path, stem: str) -> Draft:
    """A file of the folder, to be changed; ``settle`` writes it back."""
    return Draft.read(folder / f"{stem}.safetensors")


def settle(folder: Path, stem: str, draft: Draft) -> None:
    draft.write(folder / f"{stem}.safetensors")
    write_manifest(folder)


def lines(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], str]:
    """Status, stdout's lines but the last, and the last one, of a run over ``root``."""
    status = main([str(root)])
    *body, last = capsys.readouterr().out.splitlines()
    assert all(LINE.fullmatch(line) for line in body)
    counts = [sum(line.startswith(verdict) for line in body) for verdict in ("PASS", "FAIL")]
    assert last == f"{counts[0]} passed, {counts[1]} failed"
    return status, body, last


def failed(root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The names of failed cases; the status says whether there are any."""
    status, body, _ = lines(root, capsys)
    names = [line.split()[1] for line in body if line.startswith("FAIL")]
    assert status == (1 if names else 0)
    return names


def test_parts_may_be_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without activations, cached steps, a VAE mode, prompts, a chunk, and whole files; under another name."""
    stems = ("dit", "vae_888", "pipeline_inputs", "pipeline_deepcache50", "text_encoders")
    folder = copied(
        tmp_path / "numbers of June", (*(f"{stem}.safetensors" for stem in stems), "tiny_weights", "tiny_weights.json")
    )
    dit = changed(folder, "dit")
    dit.drop("t10_b2.mid.", "t10_b2.cached.")
    settle(folder, "dit", dit)
    vae = changed(folder, "vae_888")
    vae.drop("enc.")
    settle(folder, "vae_888", vae)
    text = changed(folder, "text_encoders")
    text.header["prompts"] = text.header["prompts"][1:]
    for name in text.tensors:
        if name.startswith(("llava.", "clip.")):
            text.tensors[name] = text.tensors[name][1:]
    settle(folder, "text_encoders", text)
    run_of_two = changed(folder, "pipeline_deepcache50")
    run_of_two.drop("chunk1.")
    del run_of_two.header["chunks"][1:]
    settle(folder, "pipeline_deepcache50", run_of_two)
    status, body, _ = lines(folder, capsys)
    assert status == 0
    names = {line.split()[1].removeprefix("numbers_of_June/") for line in body}
    assert {"dit/t10_b2", "vae_888/dec.both.full", "text_encoders/llava", "pipeline_deepcache50/loop"} <= names
    assert not {"dit/t10_b2.mid", "vae_888/enc.both.f1", "pipeline_deepcache50/chunk1.calls"} & names


def test_a_folder_of_several_families(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied(tmp_path / "one", ["scheduler.safetensors"])
    copied(tmp_path / "two", ["rope.safetensors", "image_prep.safetensors"])
    (tmp_path / "third").mkdir()
    shutil.copyfile(HUNYUAN / "scheduler.json", tmp_path / "third" / "scheduler.json")
    (tmp_path / "fourth").mkdir()
    shutil.copyfile(FRAMEPACK / "token_table.json", tmp_path / "fourth" / "token_table.json")
    status, body, _ = lines(tmp_path, capsys)
    assert status == 0
    assert {line.split()[1].split("/")[0] for line in body} == {"one", "two", "third", "fourth"}


@pytest.mark.parametrize(
    ("stem", "tensor", "step", "case"),
    [
        ("dit_tiny_io", "case1.act.refiner_c", 2e-4, "case1.act"),
        ("dit_tiny_io", "case0.out", 2e-4, "case0.kept"),
        ("text_encode_io", "clip.pooled", 1e-4, "clip"),
        ("vae_tiny_io", "encode_temporal.moments", 3e-4, "encode_temporal"),
        ("t2v_loop", "t2v.noise_pred", 5e-4, "t2v.calls"),
        ("t2v_loop", "t2v_cfg.latents", 2e-3, "t2v_cfg.loop"),
        ("t2v_loop", "t2v.video", 3e-4, "t2v.video"),
    ],
)
def test_a_falsified_value_of_a_whole_video_fails_by_name(
    tmp_path: Path, stem: str, tensor: str, step: float, case: str
) -> None:
    shutil.copytree(HUNYUAN, tmp_path / "f")
    draft = changed(tmp_path / "f", stem)
    draft.tensors[tensor].view(-1)[0] += step
    draft.write(tmp_path / "f" / f"{stem}.safetensors")
    (found,) = [one for one in cases(Folder(tmp_path / "f", "f")) if one.name == f"f/{stem}/{case}"]
    assert run(found).reasons


def test_nothing_to_find_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(tmp_path, capsys)[::2] == (1, "0 passed, 0 failed")
    assert lines(tmp_path / "absent", capsys)[::2] == (1, "0 passed, 0 failed")


@pytest.mark.parametrize(
    ("stem", "tensor", "step", "case"),
    [
        ("camera", "rel_c2w", 1e-5, "actions"),
        ("camera", "traj_plucker_16x24", 5e-5, "traj"),
        ("rope", "real_len69.sin", 1e-4, "real_len69"),
        ("scheduler", "n8_s5.x2", 1e-4, "n8_s5"),
        ("scheduler", "n100_s7.timesteps", 1e-4, "n100_s7"),
        ("cameranet", "compress_out33", 1e-4, "compress_out33"),
        ("dit", "t10_b2.mid.double_last.txt", 2e-4, "t10_b2.mid"),
        ("dit", "t10_b2.cached.out", 2e-4, "t10_b2.cached"),
        ("vae_888", "dec.both.full.frame_mean", 5e-4, "dec.both.full"),
        ("image_prep", "out4_u8", 1, "4_57x31"),
        ("fp8_linear", "qx", 1, "bytes"),
    ],
)
def test_a_falsified_value_fails_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stem: str, tensor: str, step: float, case: str
) -> None:
    """One value, the last, moved by ten tolerances (by one where the demand is exactness)."""
    folder = copied(tmp_path / "f", [f"{stem}.safetensors"])
    assert failed(folder, capsys) == []
    draft = changed(folder, stem)
    values = draft.tensors[tensor].flatten()
    values[-1] += torch.tensor(step).to(values.dtype) if values[-1] < 200 else -1
    draft.tensors[tensor] = values.view_as(draft.tensors[tensor])
    settle(folder, stem, draft)
    assert f"f/{stem}/{case}" in failed(folder, capsys)


RUN_FILES = ("pipeline_inputs.safetensors", "tiny_weights", "tiny_weights.json")


@pytest.mark.parametrize(
    ("stem", "case", "tensors"),
    [
        ("pipeline_deepcache50", "loop", ["chunk1.in.last_latents", "chunk1.in.ref_latents", "chunk1.out.ref_latents"]),
        ("pipeline_deepcache50", "chunk0.calls", ["chunk0.step11.model_output", "chunk0.step11.model_input"]),
        ("pipeline_deepcache50", "chunk1.frames", ["chunk1.frames"]),
        ("pipeline_nocfg", "loop", ["chunk0.in.ref_latents", "chunk0.denoised_latents"]),
        ("pipeline_videostart", "posterior", ["chunk0.in.ref_latents", "ref_posterior.mean", "posterior.logvar"]),
        ("pipeline_inputs", "text", ["text_states_2", "text_states"]),
    ],
)
def test_falsified_values_of_a_run_fail_by_name(tmp_path: Path, stem: str, case: str, tensors: list[str]) -> None:
    folder = copied(tmp_path / "f", {f"{stem}.safetensors", *RUN_FILES})
    draft = changed(folder, stem)
    for name in tensors:
        draft.tensors[name].view(-1)[-1] += 5e-4
    settle(folder, stem, draft)
    (found,) = [one for one in cases(Folder(folder, "f")) if one.name == f"f/{stem}/{case}"]
    told = {reason.split(":")[0] for reason in run(found).reasons}
    assert told == set(tensors)


def test_an_unknown_tensor_fails_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(tmp_path / "f", ["scheduler.safetensors"])
    draft = changed(folder, "scheduler")
    draft.tensors["n8_s5.x9"] = torch.zeros(1)
    settle(folder, "scheduler", draft)
    assert failed(folder, capsys) == ["f/scheduler:n8_s5.x9"]


def test_an_unknown_file_fails_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(tmp_path / "f", ["scheduler.safetensors"])
    settle(folder, "mouse", Draft({}, {"path": torch.zeros(2)}))
    assert failed(folder, capsys) == ["f/mouse:path"]


@pytest.mark.parametrize("stem", ["scheduler", "rope"])
def test_a_truncated_file_fails_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], stem: str) -> None:
    folder = copied(tmp_path / "f", ["scheduler.safetensors", "rope.safetensors"])
    path = folder / f"{stem}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert failed(folder, capsys) == [f"f/manifest/{stem}.safetensors", f"f/{stem}"]


def test_a_missing_file_fails_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(tmp_path / "f", ["scheduler.safetensors", "rope.safetensors"])
    (folder / "rope.safetensors").unlink()
    assert failed(folder, capsys) == ["f/manifest/rope.safetensors"]


def test_damaged_weights_fail_every_run(tmp_path: Path) -> None:
    folder = copied(tmp_path / "f", {"pipeline_nocfg.safetensors", *RUN_FILES})
    (checkpoint,) = folder.glob("tiny_weights/**/mp_rank_00_model_states.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    outcomes = {one.name: run(one) for one in cases(Folder(folder, "f")) if "nocfg/" in one.name}
    assert not outcomes["f/pipeline_nocfg/loop"].passed
    assert checkpoint.name in outcomes["f/pipeline_nocfg/loop"].reasons[0]
    assert outcomes["f/pipeline_nocfg/chunk0.frames"].passed
