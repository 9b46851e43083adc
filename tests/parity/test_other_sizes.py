"""Folders of other sizes: nothing in the runner is a constant of the folders that are there.

The reference cannot be run here, so stored results are zeros of the right shape, and what is shown is that every case
computes and compares something of that shape: a wrong shape, or anything raised, is an infinite error.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from gamecraft_core.families.camera_net import CameraNet
from gamecraft_core.families.gamecraft import build_model
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.random_init import fill_random
from tests.parity.check import run
from tests.parity.discover import cases, uncompared
from tests.parity.golden import Folder
from tests.parity.models import dit_fields, preset, vae_config
from tests.parity.rewrite import Draft


def computed(folder: Path, stem: str, draft: Draft) -> dict[str, float]:
    """The largest error of every case of the one file, by the case's name."""
    draft.write(folder / f"{stem}.safetensors")
    opened = Folder(folder, "other")
    errors = {case.name.removeprefix(f"other/{stem}/"): run(case).worst.error for case in cases(opened)}
    assert not uncompared(opened)
    assert all(math.isfinite(error) for error in errors.values()), errors
    return errors


def states(model: torch.nn.Module) -> dict[str, Tensor]:
    fill_random(model, seed=3)
    return {f"sd.{name}": value for name, value in model.state_dict().items()}


def test_transformer(tmp_path: Path) -> None:
    """One block of each kind, three samples, another grid and text length; an image start, a continuation."""
    config = {
        **{"hidden_size": 36, "num_heads": 3, "rope_dim_list": [4, 4, 4], "rope_theta": 100, "patch_size": [1, 2, 2]},
        **{"depth_double_blocks": 1, "depth_single_blocks": 1, "text_states_dim": 10, "text_states_dim_2": 6},
    }
    grid, text = (6, 4), 13
    draft = Draft({"config": config, "latent_hw": list(grid), "cases": [], "cam": {"action": "d", "speed": 2.0}}, {})
    draft.tensors |= states(build_model(preset(dit=dit_fields(config)), "meta", torch.float32))
    for name, frames, batch, camera in (("a", 10, 3, "both"), ("b", 18, 1, "uncond")):
        tokens = frames * grid[0] * grid[1] // 4
        draft.header["cases"].append({"name": name, "batch": batch, "cam": camera, "latent_t": frames})
        shapes: dict[str, tuple[int, ...]] = {
            "x": (1, 33, frames, *grid),
            "out": (batch, 16, frames, *grid),
            "cached.out": (batch, 16, frames, *grid),
        }
        shapes |= {"t": (batch,), "cached.t": (batch,), "text_states": (batch, text, 10), "text_states_2": (batch, 6)}
        shapes |= {"mid.double_last.txt": (batch, text, 36), "mid.single_last": (batch, tokens + text, 36)}
        shapes |= {"mid.camera_net_call1": (batch, 54, 36), "mid.cu_seqlens": (2 * batch + 1,)}
        draft.tensors |= {f"{name}.{key}": torch.zeros(shape) for key, shape in shapes.items()}
        draft.tensors[f"{name}.text_mask"] = (torch.arange(text) < torch.arange(3, 3 + batch)[:, None]).long()
    names = computed(tmp_path, "dit", draft)
    assert {"a", "a.mid", "a.cached", "a.kept", "b"} <= names.keys()


def test_vae(tmp_path: Path) -> None:
    """Tiles of space and time, both larger than one tile."""
    config = {"block_out_channels": [4, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 2, "latent_channels": 6}
    config |= {"sample_size": 32, "sample_tsize": 16, "time_compression_ratio": 4}
    encode = {"op": "encode", "mode": "both", "input": "f21"}
    decode = {"op": "decode", "mode": "temporal", "input": "t6", "frames": [0, 20]}
    draft = Draft({"config": config, "cases": [encode, decode]}, states(CausalVae(vae_config(config))))
    draft.tensors |= {"video_u8": torch.zeros(1, 3, 25, 40, 32, dtype=torch.uint8), "z": torch.ones(1, 6, 7, 3, 2)}
    draft.tensors |= {"enc.both.f21.mean": torch.zeros(1, 6, 6, 5, 4), "dec.temporal.t6.frame_mean": torch.zeros(1, 21)}
    draft.tensors["dec.temporal.t6.frames"] = torch.zeros(1, 3, 2, 24, 16)
    assert computed(tmp_path, "vae_884", draft).keys() == {"enc.both.f21", "dec.temporal.t6"}


def test_camera(tmp_path: Path) -> None:
    """17 frames, two actions, three speeds; a map's header in each of its three forms."""
    header = {
        "actions": ["s", "down_rot"],
        "speeds": [0.1, 0.5, 2.0],
        "plucker_8x24": {"speed": 0.5, "frames": [0, 5, 16]},
        "plucker_a_16x8": [{"action": "s", "speed": 0.3, "frame": 16}, {"action": "a", "speed": 0.3, "frame": 2}],
        "plucker_b_16x8": [{"action": "w", "speed": 3.0, "frames": [1, 2]}],
    }
    draft = Draft(header, {"pose_rows": torch.zeros(2, 3, 18, 19), "rel_c2w": torch.zeros(2, 3, 17, 4, 4)})
    draft.tensors |= {"plucker_8x24": torch.zeros(2, 3, 6, 8, 24), "plucker_a_16x8": torch.zeros(2, 6, 16, 8)}
    draft.tensors |= {"plucker_b_16x8": torch.zeros(1, 2, 6, 16, 8), "uncond_16x8": torch.zeros(6, 16, 8)}
    assert len(computed(tmp_path, "camera", draft)) == 5


def test_camera_encoder(tmp_path: Path) -> None:
    """17 frames of 2 x 1 tokens; a pooling of three clips of ten frames."""
    config = {"in_channels": 6, "downscale_coef": 8, "out_channels": 4, "patch_size": [1, 2, 2], "hidden_size": 12}
    draft = Draft({"config": config}, states(CameraNet(6, 8, 4, (1, 2, 2), 12)))
    draft.tensors |= {"input17": torch.ones(1, 17, 6, 32, 16), "out17": torch.zeros(1, 10, 12)}
    draft.tensors |= {"out9_batch2": torch.zeros(2, 6, 12), "out_zero4": torch.zeros(1, 2, 12)}
    draft.tensors |= {"compress_in10": torch.zeros(30, 2, 3, 3), "compress_out7": torch.zeros(12, 2, 3, 3)}
    assert computed(tmp_path, "cameranet", draft).keys() == {"out17", "out9_batch2", "out_zero4", "compress_out7"}
