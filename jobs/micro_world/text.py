"""Makes the micro world's two text encoders: ``python -m jobs.micro_world.text FOLDER``.

Tokenizers that know the worlds' words whole, and fixed encoders with drawn weights: a random transformer keeps what
its tokens were, and what they mean is learnt by the model that reads its states. They are part of the preset, made
once: another draw is another language.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gamecraft_core.base.preset import Preset, TextConfig, WeightsConfig
from gamecraft_core.micro.words import AIRS, COLOUR_NAMES, PLACES, SENTENCES, TIMES, Words
from gamecraft_core.text.models import build_clip, build_llm
from gamecraft_core.training.publish import write_weights
from jobs.config import load_preset
from jobs.presets.tiny_text.train import train_clip, train_llm

SEED = 29
_WIDTH, _INNER, _HEADS = 32, 64, 2


def corpus() -> str:
    """Every word many times, in every sentence."""
    looks = [
        Words(place, colour, light, air)
        for place in PLACES
        for colour in COLOUR_NAMES
        for light in TIMES
        for air in AIRS
    ]
    return "\n".join(look.prompt(sentence) for look in looks for sentence in range(len(SENTENCES)))


def make(folder: Path) -> None:
    """Write ``folder/llm`` and ``folder/clip``."""
    for name in ("llm", "clip"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    tokenizer = train_llm(folder / "llm", corpus())
    ids = train_clip(folder / "clip", corpus())
    _config(
        folder / "llm",
        _llm_config(
            {name: tokenizer.get_vocab()[token] for name, token in _TOKENS.items()}, tokenizer.get_vocab_size()
        ),
    )
    _config(folder / "clip", _clip_config(len(ids)))
    preset = _drawn(load_preset("micro-gamecraft"), folder)
    cpu = torch.device("cpu")
    write_weights(build_llm(preset, cpu).state_dict(), folder / "llm" / "model.safetensors")
    write_weights(build_clip(preset, cpu).state_dict(), folder / "clip" / "model.safetensors")


_TOKENS = {"image": "<image>", "pad": "<pad>", "begin": "<|begin_of_text|>", "end": "<|end_of_text|>"}


def _llm_config(ids: dict[str, int], size: int) -> dict[str, Any]:
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": ids["image"],
        "pad_token_id": ids["pad"],
        "text_config": {
            "model_type": "llama",
            "vocab_size": size,
            "bos_token_id": ids["begin"],
            "eos_token_id": ids["end"],
            "hidden_size": _WIDTH,
            "intermediate_size": _INNER,
            "num_hidden_layers": 4,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _HEADS,
            "head_dim": _WIDTH // _HEADS,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-05,
            "rope_theta": 500000.0,
        },
    }


def _clip_config(size: int) -> dict[str, Any]:
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": size,
            "bos_token_id": size - 2,
            "eos_token_id": size - 1,
            "hidden_size": _WIDTH,
            "intermediate_size": _INNER,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "max_position_embeddings": 77,
            "projection_dim": _WIDTH,
        },
    }


def _config(folder: Path, values: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _drawn(preset: Preset, folder: Path) -> Preset:
    """``preset`` with its encoders in ``folder``, their weights drawn."""
    for old in folder.glob("*/model.safetensors"):
        old.unlink()
    text = TextConfig(llm=str(folder / "llm"), clip=str(folder / "clip"))
    weights = WeightsConfig(kind="random", seed=SEED)
    return preset.model_copy(update={"text": text, "weights": weights})


def main(argv: Sequence[str]) -> int:
    if len(argv) != 1:
        print("usage: python -m jobs.micro_world.text FOLDER", file=sys.stderr)
        return 2
    make(Path(argv[0]).absolute())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
