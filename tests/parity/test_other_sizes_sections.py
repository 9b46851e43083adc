"""FramePack runs, sampler calls and tables of other sizes: every case computes and compares the right shape."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.__main__ import COMMITTED
from tests.parity.check import Result, run
from tests.parity.discover import cases, uncompared
from tests.parity.golden import Folder
from tests.parity.rewrite import Draft

#: Width and height in latents, window, sections.
H, W, WINDOW, SECTIONS = 2, 6, 2, 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The committed models and inputs, under a configuration to be changed."""
    shutil.copytree(COMMITTED / "hunyuanvideo", tmp_path / "hunyuanvideo")
    made = tmp_path / "made"
    made.mkdir()
    for stem in ("conditioning", "siglip_tiny_weights", "transformer_tiny_weights"):
        shutil.copyfile(COMMITTED / "framepack" / f"{stem}.safetensors", made / f"{stem}.safetensors")
    return made


def results(folder: Path, stem: str) -> dict[str, Result]:
    opened = Folder(folder, "other")
    found = {case.name.removeprefix(f"other/{stem}/"): run(case) for case in cases(opened)}
    assert not [missed.name for missed in uncompared(opened) if stem in missed.name]
    return {name: one for name, one in found.items() if not name.startswith("other/")}


def errors(folder: Path, stem: str) -> dict[str, float]:
    return {name: one.worst.error for name, one in results(folder, stem).items()}


def write_config(folder: Path, **parts: Any) -> None:
    config = json.loads((COMMITTED / "framepack" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | parts))


def described(demo: str, window: int, sections: int, **changes: Any) -> dict[str, Any]:
    settings = {
        **{"demo": demo, "latent_window_size": window, "total_second_length": 4 * window * sections / 24, "fps": 24},
        **{"steps": 2, "distilled_guidance_scale": 7.5, "cfg": 1.0, "rescale": 0.0, "height": 8 * H, "width": 8 * W},
        **{"sections": sections, "final_frames": 4 * window * sections + 1, "per_section": []},
    }
    return settings | changes


@pytest.mark.parametrize("demo", ["demo_gradio", "demo_gradio_f1"])
def test_runs(folder: Path, demo: str) -> None:
    """Another window, rate, length and size; only some frames are stored."""
    write_config(folder, runs={"one": described(demo, WINDOW, SECTIONS), "short": described(demo, 3, 1)})
    tensors: dict[str, Tensor] = {}
    for name, window, sections in (("one", WINDOW, SECTIONS), ("short", 3, 1)):
        for index in range(sections):
            tensors[f"{name}.sec{index}.noise"] = torch.ones(1, 16, window, H, W)
            tensors[f"{name}.sec{index}.generated"] = torch.zeros(1, 16, window, H, W)
        tensors[f"{name}.history_latents"] = torch.zeros(1, 16, window * sections + 1, H, W)
        tensors[f"{name}.frame_ids"] = torch.tensor([0, 3, 4 * window * sections])
        tensors[f"{name}.pixels"] = torch.zeros(1, 3, 3, 8 * H, 8 * W)
    for part, frames in (("", 2), ("_2x", 2), ("_4x", 16)):
        tensors[f"one.sec1.clean_latents{part}"] = torch.zeros(1, 16, frames, H, W)
    Draft({}, tensors).write(folder / "multi_section.safetensors")
    found = errors(folder, "multi_section")
    assert set(found) == {f"{name}.{part}" for name in ("one", "short") for part in ("table", "latents", "pixels")} | {
        "one.sec1.shown"
    }
    assert all(math.isfinite(error) for error in found.values()), found
    assert found["one.table"] == found["one.sec1.shown"] == 0
    assert found["one.latents"] > 0.1
    assert found["one.pixels"] > 0.1


def test_a_table_that_tells_another_story_fails(folder: Path) -> None:
    wrong = [{"latent_indices": [1, 3]}, {"latent_indices": [9, 11]}]
    write_config(folder, runs={"one": described("demo_gradio", WINDOW, 2, per_section=wrong)})
    tensors = {f"one.sec{index}.generated": torch.zeros(1, 16, WINDOW, H, W) for index in range(2)}
    tensors |= {f"one.sec{index}.noise": torch.zeros(1, 16, WINDOW, H, W) for index in range(2)}
    tensors |= {"one.history_latents": torch.zeros(1, 16, 5, H, W), "one.frame_ids": torch.tensor([1])}
    tensors["one.pixels"] = torch.zeros(1, 3, 1, 8 * H, 8 * W)
    Draft({}, tensors).write(folder / "multi_section.safetensors")
    told = results(folder, "multi_section")["one.table"].reasons
    assert [reason.split(" (")[0] for reason in told] == ["section 0 latent_indices", "section 1 latent_indices"]


def test_calls(folder: Path) -> None:
    """Another size and window; one call of those that there may be, and TeaCache at another threshold."""
    common = {"steps": 3, "distilled_guidance_scale": 4.0}
    write_config(
        folder, sample_calls={"common": common, "cfg": {"real_guidance_scale": 3.0}}, teacache=common | {"steps": 4}
    )
    latents, text = (1, 16, 4, H, W), 5
    tensors = {"sample_cfg.noise": torch.ones(latents), "sample_cfg.denoised": torch.zeros(3, *latents)}
    tensors |= {"sample_cfg.result": torch.zeros(latents), "teacache.noise": torch.ones(1, 16, 2, H, W)}
    tensors |= {f"teacache{part}": torch.zeros(1, 16, 2, H, W) for part in (".result_without_cache", "_0.result")}
    tensors |= {"teacache.latent_indices": torch.tensor([[8, 9]])}
    given = {"image_embeddings": torch.ones(1, 2, 20), "latent_indices": torch.arange(4)[None] + 3}
    for prefix in ("", "negative_"):
        given |= {f"{prefix}prompt_embeds": torch.ones(1, text, 32), f"{prefix}prompt_poolers": torch.ones(1, 24)}
        given[f"{prefix}prompt_embeds_mask"] = torch.tensor([[1, 1, 1, 0, 0]])
    for name, frames in (("", 2), ("_2x", 2), ("_4x", 16)):
        given[f"clean_latents{name}"] = torch.ones(1, 16, frames, H, W)
        given[f"clean_latent{name}_indices"] = torch.arange(frames)[None] + 20
    tensors |= {f"sample_inputs.{name}": value for name, value in given.items()}
    Draft({}, tensors).write(folder / "sampler_io.safetensors")
    tea = {"poly": [733.226126, -401.131952, 67.5869174, -3.149878, 0.0961237896]}
    tea["runs"] = [{"threshold": 1e9, "calc": [1, 0, 0, 1], "accumulated_after": [0.0] * 4}]  # type: ignore[list-item]
    (folder / "sampler.json").write_text(json.dumps({"flux_mu": [], "sigmas": [], "unipc": [], "teacache": tea}))
    found = errors(folder, "sampler_io")
    assert set(found) == {"sample_cfg", "teacache"}
    assert all(0.1 < error < math.inf for error in found.values()), found
