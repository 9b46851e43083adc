"""FramePack transformers and image encoders of other sizes: every case computes and compares the right shape."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gamecraft_core.families.framepack import build_model
from gamecraft_core.families.framepack_start import build_siglip
from gamecraft_core.weights.diffusers import diffusers_source
from gamecraft_core.weights.random_init import fill_random
from gamecraft_core.weights.source import Entry, Source
from tests.parity.__main__ import COMMITTED
from tests.parity.cases.framepack.models import dit_sizes
from tests.parity.check import run
from tests.parity.discover import cases, uncompared
from tests.parity.golden import Folder
from tests.parity.models import preset
from tests.parity.rewrite import Draft

CONFIG: dict[str, Any] = {
    "transformer": {
        **{"in_channels": 16, "out_channels": 16, "num_attention_heads": 3, "attention_head_dim": 12},
        **{"num_layers": 1, "num_single_layers": 1, "mlp_ratio": 2.0, "patch_size": 2, "patch_size_t": 1},
        **{"guidance_embeds": True, "text_embed_dim": 16, "pooled_projection_dim": 12, "image_proj_dim": 10},
        **{"rope_theta": 100.0, "rope_axes_dim": [4, 4, 4]},
    },
    "siglip": {
        **{"hidden_size": 10, "intermediate_size": 14, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"image_size": 42, "patch_size": 14},
    },
}
ROWS, WINDOW, H, W, TEXT = 3, 2, 6, 4, 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Configuration and weights, and the folder beside it that VAE and text encoders come from."""
    shutil.copytree(COMMITTED / "hunyuanvideo", tmp_path / "hunyuanvideo")
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    chosen = preset(dit=dit_sizes(CONFIG["transformer"]), vision={"random": CONFIG["siglip"]})
    model = build_model(chosen, "cpu", torch.float32)
    fill_random(model, 3)
    states = model.state_dict()
    entries = {key: Entry(tuple(value.shape), value.dtype, "memory") for key, value in states.items()}
    source = diffusers_source(Source("memory", entries, states.__getitem__))
    save_file(
        {key: source.read(key).contiguous() for key in source.entries}, made / "transformer_tiny_weights.safetensors"
    )
    siglip, _ = build_siglip(chosen, torch.device("cpu"))
    save_file(siglip.state_dict(), made / "siglip_tiny_weights.safetensors")
    return made


def errors(folder: Path, stem: str) -> dict[str, float]:
    opened = Folder(folder, "other")
    found = [case for case in cases(opened) if case.name.startswith(f"other/{stem}/")]
    made = {case.name.removeprefix(f"other/{stem}/"): run(case).worst.error for case in found}
    assert not uncompared(opened)
    return made


def test_transformer(folder: Path) -> None:
    """A batch whose rows lie at other times, after a history of which one scale is absent."""
    packed, sight = 1 * 2 * 1 + 2 * 3 * 2 + WINDOW * 3 * 2, 3
    video, text = (ROWS, 16, WINDOW, H, W), (ROWS, TEXT, 16)
    tensors: dict[str, Tensor] = {"hidden_states": torch.ones(video), "encoder_hidden_states": torch.ones(text)}
    tensors |= {"timestep": torch.tensor([999.0, 3.5, 0.0]), "guidance": torch.tensor([1.0, 4000.0, 7250.5])}
    tensors |= {"pooled_projections": torch.ones(ROWS, 12), "image_embeddings": torch.ones(ROWS, sight, 10)}
    tensors["encoder_attention_mask"] = (torch.arange(TEXT) < torch.tensor([1, 3, TEXT])[:, None]).long()
    tensors["latent_indices"] = torch.arange(WINDOW)[None] + torch.tensor([[1], [5], [9]])
    for name in ("", "_2x"):
        tensors[f"clean_latents{name}"] = torch.ones(ROWS, 16, 2, H, W)
        tensors[f"clean_latent{name}_indices"] = torch.arange(2)[None].repeat(ROWS, 1) + 20
    shapes = {"out": video, "act.packed_tokens": (ROWS, packed, 36), "act.rope_cos": (ROWS, packed, 12)}
    shapes |= {"act.double_0_txt": (ROWS, sight + TEXT, 36), "act.single_0_img": (ROWS, packed, 36)}
    shapes |= {"act.context_embedder": (ROWS, TEXT, 36), "act.temb": (ROWS, 36), "act.norm_out": (ROWS, packed, 36)}
    tensors |= {name: torch.zeros(shape) for name, shape in shapes.items()}
    Draft({}, {f"mine.{name}": value for name, value in tensors.items()}).write(
        folder / "transformer_tiny_io.safetensors"
    )
    found = errors(folder, "transformer_tiny_io")
    assert set(found) == {"mine", "mine.kept", "mine.act"}
    assert all(0.01 < error < math.inf for error in found.values()), found


def test_key_map(folder: Path) -> None:
    assert set(errors(folder, "transformer_tiny_weights").values()) == {0.0}


def test_conditioning(folder: Path) -> None:
    """Another image, sizes and prompt length; the encoder's keys without their prefix."""
    tensors = {"image_uint8": torch.arange(50 * 30 * 3).view(50, 30, 3).to(torch.uint8)}
    tensors |= {"cropped_uint8": torch.zeros(16, 32, 3, dtype=torch.uint8)}
    tensors |= {"cropped_64x48_uint8": torch.zeros(48, 64, 3, dtype=torch.uint8)}
    tensors |= {"image_pt": torch.zeros(1, 3, 1, 16, 32), "siglip_pixel_values": torch.zeros(1, 3, 42, 42)}
    tensors["siglip_last_hidden_state"] = torch.zeros(1, 9, 10)
    tensors |= {f"start_latent{part}": torch.zeros(1, 16, 1, 2, 4) for part in ("", "_mean", "_std", "_noise")}
    tensors |= {"llm_input_ids": torch.arange(20)[None], "llm_attention_mask": (torch.arange(20) < 17).long()[None]}
    tensors |= {"clip_input_ids": torch.arange(77)[None] % 90, "clip_l_pooler": torch.zeros(1, 24)}
    tensors["llama_vec"] = torch.zeros(1, 6, 32)
    Draft({}, tensors).write(folder / "conditioning.safetensors")
    found = errors(folder, "conditioning")
    assert set(found) == {"cropped", "cropped_64x48", "siglip", "start_latent", "text"}
    assert all(0.01 < error < math.inf for error in found.values()), found
