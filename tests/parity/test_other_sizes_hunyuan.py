"""HunyuanVideo folders of other sizes, as in ``test_other_sizes``: every case computes and compares the right shape."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gamecraft_core.families.hunyuan_video import build_model
from gamecraft_core.text.models import build_clip, build_llm
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.random_init import fill_random
from tests.parity.cases.hunyuan.models import named_sizes, text_folders, text_preset
from tests.parity.check import run
from tests.parity.discover import cases, uncompared
from tests.parity.golden import Folder
from tests.parity.models import preset, vae_config
from tests.parity.rewrite import Draft

CONFIG: dict[str, Any] = {
    "dit": {
        "patch_size": [1, 2, 2],
        "hidden_size": 36,
        "heads_num": 3,
        "mlp_width_ratio": 2.0,
        "mm_double_blocks_depth": 1,
        "mm_single_blocks_depth": 1,
        "rope_dim_list": [4, 4, 4],
        "rope_theta": 100,
        "guidance_embed": True,
        "text_states_dim": 16,
        "text_states_dim_2": 12,
    },
    "vae": {
        "block_out_channels": [4, 8, 8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "latent_channels": 16,
        "sample_size": 32,
        "sample_tsize": 16,
    },
    "llm": {"vocab": 50, "hidden": 16, "inter": 20, "layers": 4, "heads": 2, "kv": 1},
    "clip": {
        **{"vocab": 40, "hidden": 12, "inter": 20, "layers": 1, "heads": 2, "max_position_embeddings": 20},
        **{"bos_id": 38, "eos_id": 39, "pad_id": 39},
    },
    "text": {"crop_start": {"video": 6, "image": 3}, "hidden_state_skip_layer": 1},
    "t2v": {"num_inference_steps": 2, "flow_shift": 5.0, "embedded_guidance_scale": 4.0, "cfg_scale": 1.0},
    "t2v_cfg": {"num_inference_steps": 1, "guidance_scale": 3.0, "flow_shift": 5.0, "embedded_guidance_scale": 4.0},
    "vae_cases": {
        "decode_all": {"spatial_tiling": True, "temporal_tiling": True},
        "encode_time": {"spatial_tiling": False, "temporal_tiling": True},
    },
}
LATENTS = (2, 4, 6)


def _states(model: nn.Module) -> dict[str, Tensor]:
    fill_random(model, seed=3)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Configuration and weights."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    texts = text_preset(CONFIG, text_folders(CONFIG, tmp_path))
    models: dict[str, nn.Module] = {
        "dit": build_model(preset(dit=named_sizes(CONFIG)), "meta", torch.float32),
        "vae": CausalVae(vae_config(CONFIG["vae"])),
        "llm": build_llm(texts, torch.device("cpu")),
        "clip": build_clip(texts, torch.device("cpu")),
    }
    for part, model in models.items():
        save_file(_states(model), made / f"{part}_tiny_weights.safetensors", {"format": "some words"})
    return made


def computed(folder: Path, stem: str, tensors: dict[str, Tensor]) -> set[str]:
    """The names of the file's cases, each of which has to compare something of the right shape."""
    Draft({}, tensors).write(folder / f"{stem}.safetensors")
    return _run(folder, stem)


def _run(folder: Path, stem: str) -> set[str]:
    opened = Folder(folder, "other")
    errors = {case.name.removeprefix(f"other/{stem}/"): run(case).worst.error for case in cases(opened)}
    assert not uncompared(opened)
    assert all(math.isfinite(error) for error in errors.values()), errors
    return set(errors)


def _mask(real: list[int], tokens: int) -> Tensor:
    return (torch.arange(tokens) < torch.tensor(real)[:, None]).long()


def _ids(rows: int, tokens: int, most: int) -> Tensor:
    return torch.arange(rows * tokens).view(rows, tokens) % most


def test_transformer(folder: Path) -> None:
    tokens, text = 2 * 2 * 3, 13
    shapes: dict[str, tuple[int, ...]] = {
        **{"x": (3, 16, *LATENTS), "out": (3, 16, *LATENTS), "text_states": (3, text, 16), "text_states_2": (3, 12)},
        **{"act.vec": (3, 36), "act.refiner_c": (3, 36), "act.txt_in": (3, text, 36), "act.img_in": (3, tokens, 36)},
        **{"act.double_0_txt": (3, text, 36), "act.single_0": (3, tokens + text, 36)},
        **{"act.final_layer": (3, tokens, 64), "freqs_cos": (tokens, 12), "freqs_sin": (tokens, 12)},
    }
    made = {f"small.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    made |= {"small.t": torch.tensor([999.0, 3.5, 0.0]), "small.guidance": torch.tensor([1.0, 4000.0, 7250.5])}
    made["small.text_mask"] = _mask([1, 5, text], text)
    assert computed(folder, "dit_tiny_io", made) == {"small", "small.kept", "small.act", "small.freqs"}


def test_vae(folder: Path) -> None:
    made = {"decode_all.z": torch.ones(1, 16, 7, 5, 2), "decode_all.out": torch.zeros(1, 3, 25, 40, 16)}
    made |= {"encode_time.x": torch.ones(1, 3, 21, 16, 8), "encode_time.moments": torch.zeros(1, 32, 6, 2, 1)}
    assert computed(folder, "vae_tiny_io", made) == {"decode_all", "encode_time"}


def test_text(folder: Path) -> None:
    made = {"clip.input_ids": _ids(2, 20, 40), "clip.pooled": torch.zeros(2, 12)}
    for name, crop in CONFIG["text"]["crop_start"].items():
        made |= {f"{name}.input_ids": _ids(2, 15, 50), f"{name}.attention_mask": _mask([9, 15], 15)}
        made |= {
            f"{name}.prompt_embeds": torch.zeros(2, 15 - crop, 16),
            f"{name}.prompt_mask": _mask([9, 15], 15)[:, crop:],
        }
    made["clip.attention_mask"] = torch.ones(2, 20)
    assert computed(folder, "text_encode_io", made) == {"clip", "video", "image"}


def test_runs(folder: Path) -> None:
    """One from token ids to pixels, one guided from stored states."""
    made: dict[str, Tensor] = {"t2v_cfg.prompt_mask": _mask([2, 7], 9), "t2v.prompt_mask": _mask([7], 9)}
    for name, steps, rows in (("t2v", 2, 1), ("t2v_cfg", 1, 2)):
        shapes: dict[str, tuple[int, ...]] = {
            **{"noise": (1, 16, *LATENTS), "latents": (steps, 1, 16, *LATENTS), "sigmas": (steps + 1,)},
            **{"noise_pred": (steps, rows, 16, *LATENTS), "guidance": (rows,), "timesteps": (steps,)},
            **{"prompt_embeds": (rows, 9, 16), "pooled": (rows, 12)},
        }
        made |= {f"{name}.{part}": torch.zeros(shape) for part, shape in shapes.items()}
    made |= {"t2v.llm_input_ids": _ids(1, 15, 50), "t2v.llm_attention_mask": _mask([13], 15)}
    made |= {"t2v.clip_input_ids": _ids(1, 20, 40), "t2v.video": torch.zeros(1, 3, 5, 32, 48)}
    made |= {"freqs_cos": torch.zeros(12, 12), "freqs_sin": torch.zeros(12, 12)}
    names = {f"{name}.{part}" for name in ("t2v", "t2v_cfg") for part in ("schedule", "loop", "calls")}
    assert computed(folder, "t2v_loop", made) == names | {"t2v.video", "freqs"}


def test_tables(folder: Path) -> None:
    """Another step count, a shift, the switch off; another precision's guidance; fewer templates."""
    schedule = {"shift": 2.5, "num_inference_steps": 3, "reverse": False, "sigmas": [0.0] * 4, "timesteps": [0.0] * 3}
    told = {"embedded_guidance_scale": 3.0, "value_bf16": 3008.0}
    (folder / "scheduler.json").write_text(json.dumps({"schedules": [schedule], "guidance_embed": told}))
    assert _run(folder, "scheduler") == {"n3_s2.5_off", "guidance_embed"}
