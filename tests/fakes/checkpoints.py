"""A preset's seeded random weights written out in the published on-disk layout, tokenizers included."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from gamecraft_core.base.preset import Preset
from gamecraft_core.families.gamecraft import build_model
from gamecraft_core.text.models import build_clip, build_llm
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.loader import load_dit, load_vae


@dataclass(frozen=True)
class Official:
    """The four places of a checkpoint."""

    dit: Path
    vae: Path
    llm: Path
    clip: Path

    @property
    def sets(self) -> list[str]:
        """``--set`` options that make a run read them."""
        places = {"weights.dit": self.dit, "weights.vae": self.vae, "text.llm": self.llm, "text.clip": self.clip}
        values = ["weights.kind=files", *(f"{key}={path}" for key, path in places.items())]
        return [word for value in values for word in ("--set", value)]


def write_official(preset: Preset, folder: Path) -> Official:
    """Write what ``preset``, which has random weights, would draw; a run from these files gives the same numbers."""
    made = Official(folder / "gamecraft_models", folder / "hyvae", folder / "llm", folder / "clip")
    made.dit.mkdir(parents=True)
    made.vae.mkdir()
    dit = build_model(preset, "meta", getattr(torch, preset.runtime.dtype))
    load_dit(preset, dit)
    torch.save({"module": dit.state_dict()}, made.dit / "mp_rank_00_model_states.pt")
    with torch.device("meta"):
        vae = CausalVae(preset.vae)
    load_vae(preset, vae)
    states = {f"vae.{key}": value for key, value in vae.state_dict().items()}
    torch.save({"state_dict": states}, made.vae / "pytorch_model.pt")
    cpu = torch.device("cpu")
    for place, source, model, prefix in (
        (made.llm, preset.text.llm, build_llm(preset, cpu), "language_model.model."),
        (made.clip, preset.text.clip, build_clip(preset, cpu), "text_model."),
    ):
        shutil.copytree(source, place)
        tensors = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
        save_file(tensors, place / "model.safetensors")
    return made
