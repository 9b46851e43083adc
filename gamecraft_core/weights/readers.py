"""Which file a checkpoint's path means, and what of it is the model: the published layouts and safetensors of our own.

A reader opens, it does not load (see ``source``). What it gives has the official key names, whatever the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.weights.diffusers import is_diffusers, official_source
from gamecraft_core.weights.files import of_tensors, open_pickle, open_safetensors
from gamecraft_core.weights.fp8_file import expanded, is_stored_bare, read_scales, scales_beside
from gamecraft_core.weights.source import Source

Kind = Literal["dit", "vae"]
#: From the names in a folder, those that will be read.
Pick = Callable[[Iterable[str]], list[str]]

_SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")
_VAE_STARTS = ("vae.", "encoder.", "decoder.")
_VAE_FILE = "pytorch_model.pt"


def open_dit(path: str) -> Source:
    """A transformer: an official ``.pt`` (under ``module``, ``ema`` or nothing; with a map file, its fp8 form) or
    safetensors, ours or those of diffusers.
    """
    place = find_dit(path)
    if not is_pickle(place):
        source = open_safetensors(place, "weights.dit")
        return official_source(source) if is_diffusers(source) else source
    source = of_tensors(place, _selected(open_pickle(place, "weights.dit")), "weights.dit")
    scales = scales_beside(place)
    return expanded(source, read_scales(scales)) if is_stored_bare(source) and scales.is_file() else source


def open_vae(path: str) -> Source:
    """A VAE: an official ``.pt`` (optional ``state_dict``; of keys that begin ``vae.`` only those) or safetensors."""
    place = find_vae(path)
    if not is_pickle(place):
        return open_safetensors(place, "weights.vae")
    states = open_pickle(place, "weights.vae")
    states = states.get("state_dict", states)
    if not isinstance(states, dict):
        raise WeightsError(f"{place}: state_dict is not a dictionary", field="weights.vae", remedy="name another file")
    prefixed = {key.removeprefix("vae."): value for key, value in states.items() if key.startswith("vae.")}
    return of_tensors(place, prefixed or states, "weights.vae")


def detect_kind(path: str) -> Kind:
    """What the checkpoint at ``path`` is, by its keys."""
    place = local(path, "SRC", _pick_either)
    if place.is_dir():
        if (place / _VAE_FILE).is_file():
            return "vae"
        place = find_dit(path)
    if is_pickle(place):
        states = open_pickle(place, "SRC")
        keys: Iterable[str] = _selected(states) if "state_dict" not in states else ["vae."]
    else:
        keys = open_safetensors(place, "SRC").entries
    return "vae" if any(key.startswith(_VAE_STARTS) for key in keys) else "dit"


def find_dit(path: str) -> Path:
    """The file ``path`` means: itself, or the ``*_model_states.pt`` of a folder; else the folder, for safetensors."""
    place = local(path, "weights.dit", pick_dit)
    found = pick_dit(file.name for file in place.iterdir()) if place.is_dir() else []
    return place / found[0] if found and is_pickle(Path(found[0])) else place


def find_vae(path: str) -> Path:
    """The file ``path`` means: itself, or the ``pytorch_model.pt`` of a folder; else the folder, for safetensors."""
    place = local(path, "weights.vae", pick_vae)
    file = place / _VAE_FILE
    return file if file.is_file() else place


def pick_dit(names: Iterable[str]) -> list[str]:
    """One ``*_model_states.pt``; without any, the safetensors. A distilled model's file must be named itself."""
    names = sorted(names)
    found = [name for name in names if fnmatch(name, "*_model_states.pt")]
    if len(found) > 1:
        raise WeightsError(
            f"the folder holds several: {', '.join(found)}", field="weights.dit", remedy="name one of the files"
        )
    return found or matching(names, _SAFETENSORS)


def pick_vae(names: Iterable[str]) -> list[str]:
    names = list(names)
    return [_VAE_FILE] if _VAE_FILE in names else matching(names, _SAFETENSORS)


def _pick_either(names: Iterable[str]) -> list[str]:
    names = list(names)
    return pick_vae(names) if _VAE_FILE in names else pick_dit(names)


def pick_text(names: Iterable[str]) -> list[str]:
    """Weights, configuration and tokenizer."""
    return matching(names, (*_SAFETENSORS, "*.json", "*.txt"))


def pick_language_model(names: Iterable[str]) -> list[str]:
    """What transformers may read of a whole language model and its tokenizer."""
    return matching(names, (*_SAFETENSORS, "*.json", "*.txt", "*.model", "*.jinja"))


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))


def local(path: str, field: str, pick: Pick = list) -> Path:
    """``path`` as an existing local file or folder; of a folder on S3, the files ``pick`` names are fetched."""
    if path.startswith("s3://"):
        from gamecraft_core.weights.remote import fetched

        return fetched(path, field, pick)
    if "://" in path and not path.startswith("file://"):
        raise WeightsError(f"cannot read {path}", field=field, remedy="name a local path or an s3:// URI")
    place = Path(path.removeprefix("file://")).expanduser()
    if not place.exists():
        raise WeightsError(f"there is nothing at {place}", field=field, remedy="correct the path or fetch the weights")
    return place


def is_pickle(place: Path) -> bool:
    return place.suffix in (".pt", ".pth", ".bin")


def _selected(states: dict[str, Any]) -> dict[str, Any]:
    for selector in ("module", "ema"):
        if isinstance(states.get(selector), dict):
            found: dict[str, Any] = states[selector]
            return found
    return states
