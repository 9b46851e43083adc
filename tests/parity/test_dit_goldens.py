"""The transformer against its golden: outputs, activations, step cache, kept rows, mixed precision, key map."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gamecraft_core.base.messages import TextStates
from gamecraft_core.dit.rope import rope_table
from gamecraft_core.families.gamecraft import Branch, GameCraftDenoiser, build_model
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.timeline.frames import latent_frames
from tests.parity.goldens import FOLDER, assert_close, cases, golden, load_model, preset

ATOL = 2e-5
NEW_LATENTS = latent_frames(33)


@cache
def denoiser(dtype: torch.dtype = torch.float32) -> GameCraftDenoiser:
    file = golden("dit")
    settings = preset(file.header["config"])
    return GameCraftDenoiser(settings, load_model(settings, file.state_dict(), dtype), Solo(), step_cache=True)


@cache
def camera_tokens(kind: str) -> Tensor:
    """Tokens of the conditional camera, or of the unconditional one: one latent frame, repeated."""
    file, net = golden("dit"), denoiser().model.camera_net
    if kind == "cond":
        tokens: Tensor = net(file["cam"][0])
        return tokens
    repeated: Tensor = net(file["cam_uncond_frame"][0]).repeat(NEW_LATENTS, 1)
    return repeated


class Row:
    """One batch row of a case, ready to be predicted."""

    def __init__(self, case: dict[str, Any], row: int, runner: GameCraftDenoiser, keep: int | None = None) -> None:
        file, name = golden("dit"), case["name"]
        self.latents = file[f"{name}.x"][0]
        self.real_tokens = int(file[f"{name}.text_mask"][row].sum())
        self.stream = runner.stream((case["latent_t"], *file.header["latent_hw"]), keep)
        unconditional = case["cam"] == "both" and row == 0
        self.branch: Branch = runner.branch(
            TextStates(
                states=file[f"{name}.text_states"][row, : self.real_tokens].numpy(),
                pooled=file[f"{name}.text_states_2"][row].numpy(),
            ),
            camera_tokens("uncond" if unconditional else "cond"),
            self.stream,
        )
        self.seen: dict[str, Tensor] = {}
        self.runner = runner

    def predict(self, timestep: Tensor, *, reuse: bool = False) -> Tensor:
        with torch.inference_mode():
            latents = torch.zeros_like(self.latents) if reuse else self.latents
            return self.runner.predict(
                latents, self.branch, float(timestep), self.stream, reuse=reuse, observe=self._observe
            )

    def _observe(self, name: str, value: Tensor) -> None:
        self.seen[name] = value.clone()


def padded(value: Tensor, like: Tensor) -> Tensor:
    """Rows of padded text are not computed here and stored as zero there."""
    return torch.cat([value, value.new_zeros(len(like) - len(value), *value.shape[1:])])


def stored_activations(case: dict[str, Any], row: int, inner: Row) -> dict[str, Tensor]:
    """What this implementation computed for every stored ``mid`` tensor of the case, under the stored name."""
    config = golden("dit").header["config"]
    last_double, last_single = config["depth_double_blocks"] - 1, config["depth_single_blocks"] - 1
    seen = inner.seen
    history = len(inner.branch.camera) - len(camera_tokens("cond"))
    calls = [inner.branch.camera[:history], inner.branch.camera[history:]][0 if history else 1 :]
    made = {name: seen[name] for name in ("time_in", "vector_in", "vec", "img_in", "img_embed", "txt_embed")}
    made |= {f"camera_net_call{index}": tokens for index, tokens in enumerate(calls)}
    for kind in ("img", "txt"):
        made[f"double_first.{kind}"] = seen[f"double_blocks.0.{kind}"]
        made[f"double_last.{kind}"] = seen[f"double_blocks.{last_double}.{kind}"]
    made["single_first"] = seen["single_blocks.0"]
    made["single_last_in"] = seen["single_last_in"]
    made["single_last"] = seen[f"single_blocks.{last_single}"]
    return made


@pytest.mark.parametrize("case", cases("dit"))
def test_outputs_and_activations(case: dict[str, Any]) -> None:
    file, name = golden("dit"), case["name"]
    middle = [key for key in file.tensors if key.startswith(f"{name}.mid.") and not key.endswith("cu_seqlens")]
    for row in range(case["batch"]):
        inner = Row(case, row, denoiser())
        assert_close(inner.predict(file[f"{name}.t"][row]), file[f"{name}.out"][row], ATOL, f"{name} row {row}")
        made = stored_activations(case, row, inner)
        for key in middle:
            stored = file[key][row]
            value = made[key.removeprefix(f"{name}.mid.")]
            assert_close(padded(value, stored) if value.dim() == 2 else value, stored, ATOL, f"{key} row {row}")


@pytest.mark.parametrize("case", [case for case in cases("dit") if (case.values[0] or {"cached": 1}).get("cached")])
def test_cached_step(case: dict[str, Any]) -> None:
    file, name = golden("dit"), case["name"]
    for row in range(case["batch"]):
        inner = Row(case, row, denoiser())
        inner.predict(file[f"{name}.t"][row])
        made = inner.predict(file[f"{name}.cached.t"][row], reuse=True)
        assert_close(made, file[f"{name}.cached.out"][row], ATOL, f"{name} row {row}")


@pytest.mark.parametrize("case", cases("dit"))
def test_keeping_the_new_frames_only_changes_none_of_them(case: dict[str, Any]) -> None:
    file, name = golden("dit"), case["name"]
    history = case["latent_t"] - NEW_LATENTS
    made = Row(case, 0, denoiser(), keep=history).predict(file[f"{name}.t"][0])
    assert_close(made[:, history:], file[f"{name}.out"][0, :, history:], ATOL, name)
    assert not made[:, :history].any()


@pytest.mark.parametrize("case", cases("dit"))
def test_attention_segments_are_video_and_real_text(case: dict[str, Any]) -> None:
    """The stored segment borders say what trimming assumes: real text ends where the segment with the video ends."""
    file, name = golden("dit"), case["name"]
    if f"{name}.mid.cu_seqlens" not in file.tensors:
        assert not any(key.startswith(f"{name}.mid.") for key in file.tensors)
        return
    borders = file[f"{name}.mid.cu_seqlens"].tolist()
    length = file[f"{name}.text_mask"].shape[1]
    for row in range(case["batch"]):
        inner = Row(case, row, denoiser())
        start = row * (inner.stream.shard.total + length)
        assert borders[2 * row] == start
        assert borders[2 * row + 1] == start + inner.stream.shard.total + inner.real_tokens


def test_rope_tables_in_the_file_are_ours() -> None:
    file = golden("dit")
    config = file.header["config"]
    h, w = (size // part for size, part in zip(file.header["latent_hw"], config["patch_size"][1:], strict=True))
    for name in file.tensors:
        if name.startswith("freqs"):
            frames, part = name.removeprefix("freqs").split(".")
            table = rope_table((int(frames), h, w), tuple(config["rope_dim_list"]), config["rope_theta"])
            made = table.real if part == "cos" else table.imag
            assert_close(made[:, 0].repeat_interleave(2, dim=-1), file[name], 1e-5, name)


@pytest.mark.parametrize("case", cases("dit"))
def test_mixed_precision_loses_no_more_than_bf16_must(case: dict[str, Any]) -> None:
    file, name = golden("dit"), case["name"]
    for row in range(case["batch"]):
        made = Row(case, row, denoiser(torch.bfloat16)).predict(file[f"{name}.t"][row])
        error = (made - file[f"{name}.out"][row]).abs()
        assert 1e-4 < float(error.mean()) < 0.01, f"{name} row {row}"


def test_real_size_has_the_published_keys() -> None:
    path = FOLDER / "keymap_dit.json"
    if not path.exists():
        pytest.skip(f"golden {path} is absent")
    described = json.loads(path.read_text())
    state = build_model(preset(described["config"]), "meta", torch.bfloat16).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == described["keys"]
    assert len(state) == described["n_keys"]
    assert sum(int(np.prod(value.shape)) for value in state.values()) == described["n_params"]
    assert {key for key, value in state.items() if value.dtype == torch.float32} == set(described["fp32_constructed"])
