"""Checks of what lies elsewhere: the output's store and its clock, weights, text encoders. They read and write."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gamecraft_core.base.errors import FramelaneError, UsageError
from gamecraft_core.base.family import family_of, load
from gamecraft_core.base.ids import digest
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.store import Store, local_path, open_store, scheme_of
from jobs.checkup.finding import Asked, Finding

#: Seconds between the clocks: beyond the first ages and deadlines are off, beyond the second S3 soon refuses requests.
SKEW_WARN_S, SKEW_FAIL_S = 5.0, 300.0
#: Of weights that are hashed at once; larger ones only where their sums are remembered by their names and sizes.
_HASHED_BYTES = 1 << 30
#: Of a model's folder, files of which it holds at least one.
_CONFIGURED, _TOKENIZED = ("config.json",), ("tokenizer.json", "vocab.json", "tokenizer.model")


def store(asked: Asked) -> Finding:
    """Everything that a run does to its store, on a key of its own that is removed again."""
    if asked.out is None:
        return Finding("", "skipped", "no --out is given")
    with _probed(asked) as (place, key):
        tried: list[str] = []
        for verb, permission, act in _acts(place, key):
            try:
                act()
            except (FramelaneError, OSError, _Wrong) as error:
                said = getattr(error, "message", str(error))
                left = "; the probe is left there" if verb == "delete" else ""
                return Finding(
                    "", "fail", f"{verb} does not work{left}: {said}", f"allow {permission} below {place.root}"
                )
            tried.append(verb)
    return Finding("", "ok", f"{place.root}: {', '.join(tried)}")


class _Wrong(Exception):
    """The store did something, but not what was asked."""


def _acts(place: Store, key: str) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """(what, the permission that it takes, how), in order."""
    content = uuid.uuid4().hex.encode()

    def expect(right: bool, what: str) -> None:
        if not right:
            raise _Wrong(what)

    first = f"{key}-once"
    yield "put", "s3:PutObject", lambda: place.put(key, content)
    yield "get", "s3:GetObject", lambda: expect(place.get(key) == content, "it holds other bytes than were put")
    yield (
        "conditional put",
        "s3:PutObject with If-None-Match",
        lambda: expect(
            place.put_if_absent(first, b"1") and not place.put_if_absent(first, b"2"),
            "two writers of one key both win: such a store loses sessions",
        ),
    )
    yield "list", "s3:ListBucket", lambda: expect(key in set(place.list(_folder(key))), "it does not list what was put")
    if hasattr(place, "try_upload"):
        yield (
            "multipart begin and abort",
            "s3:PutObject and s3:AbortMultipartUpload",
            lambda: place.try_upload(f"{key}-parts"),
        )

    def delete() -> None:
        for each in (key, first):
            place.delete(each)
            expect(not place.exists(each), "it is still there")

    yield "delete", "s3:DeleteObject", delete


@contextmanager
def _probed(asked: Asked) -> Iterator[tuple[Store, str]]:
    """The store and a key nobody else has; whatever happens, an effort is made to leave nothing."""
    out = asked.out or ""
    # Few tries: whoever checks wants to know now.
    place = open_store(out, {**asked.options, **({"attempts": 2} if scheme_of(out) == "s3" else {})})
    key = f"doctor-{uuid.uuid4().hex}/probe"  # in a folder of its own: an output may hold a million objects
    fresh = scheme_of(out) == "file" and not local_path(out).exists()
    try:
        yield place, key
    finally:
        for each in (key, f"{key}-once"):
            with suppress(FramelaneError, OSError):
                place.delete(each)
        if scheme_of(out) == "file":
            for folder in (local_path(out) / _folder(key), *([local_path(out)] if fresh else [])):
                with suppress(OSError):
                    folder.rmdir()


def _folder(key: str) -> str:
    return key.partition("/")[0]


def clock(asked: Asked) -> Finding:
    """This machine's clock against the store's."""
    if asked.out is None or scheme_of(asked.out) != "s3":
        return Finding("", "skipped", "no --out on S3 is given")
    with _probed(asked) as (place, _):
        before = time.time()
        theirs = place.server_time()  # type: ignore[attr-defined]
        skew = (before + time.time()) / 2 - theirs
    # Its date has whole seconds: it is up to one second old.
    return skewed(max(0.0, abs(skew - 0.5) - 0.5), "the store's clock")


def skewed(seconds: float, whose: str) -> Finding:
    seen = f"{seconds:.1f} s from {whose}" if seconds >= 0.05 else f"with {whose}"
    status = "fail" if seconds > SKEW_FAIL_S else "warn" if seconds > SKEW_WARN_S else "ok"
    return Finding("", status, seen, "" if status == "ok" else "let NTP set the clocks (chrony, systemd-timesyncd)")  # type: ignore[arg-type]


def weights(asked: Asked) -> Finding:
    """Every checkpoint's keys, shapes and types against the preset's models; of the tensors nothing is read."""
    if not asked.has_lanes:
        return Finding("", "skipped", "lanes that read them want a GPU, and this node has none")
    from gamecraft_core.weights.fingerprint import fingerprint

    seen, same = [], {}
    for preset in asked.presets:
        if preset.weights.kind == "random":
            seen.append(f"{preset.name}: seeded draws")
            continue
        places = (preset.weights.dit or "", preset.weights.vae or "")
        if any(place.startswith("s3://") for place in places):
            size = sum(_remote_bytes(place, asked) for place in places if place.startswith("s3://"))
            told = (
                "their keys and shapes fit" if _fits_there(preset, asked) else "keys are checked when they are fetched"
            )
            seen.append(f"{preset.name}: {size / 2**30:.1f} GiB on S3, {told}")
            continue
        size = _fits(preset)
        if size <= _HASHED_BYTES:
            same[f"weights of {preset.name}"] = fingerprint(preset)
        else:
            same[f"weights of {preset.name}"] = digest([size, preset.weights.model_dump(mode="json")])
        seen.append(f"{preset.name}: {size / 2**30:.2f} GiB, keys and shapes fit")
    return Finding("", "ok", "; ".join(seen), same=same)


def _fits_there(preset: Preset, asked: Asked) -> bool:
    """Whether checkpoints on S3 can be looked into; WeightsError where one does not fit ``preset``."""
    from gamecraft_core.weights.readers import pick_dit, pick_vae
    from jobs.checkup.headers import mirrored

    with tempfile.TemporaryDirectory(prefix="framelane-") as folder:
        paths = {}
        for name, pick in (("dit", pick_dit), ("vae", pick_vae)):
            place = getattr(preset.weights, name)
            if place.startswith("s3://"):
                (Path(folder) / name).mkdir()
                place = mirrored(place, asked.options, pick, Path(folder) / name)
            paths[name] = place and str(place)
        if not all(paths.values()):
            return False
        _fits(preset.model_copy(update={"weights": preset.weights.model_copy(update=paths)}))
    return True


def _fits(preset: Preset) -> int:
    """The bytes of local checkpoints that fit ``preset``. Raises WeightsError where one does not."""
    import torch

    from gamecraft_core.vae.model import CausalVae
    from gamecraft_core.weights.fill import require_match
    from gamecraft_core.weights.quantise import quantise_model, quantised
    from gamecraft_core.weights.readers import open_dit, open_vae

    dit, vae = open_dit(preset.weights.dit or ""), open_vae(preset.weights.vae or "")
    build_model = load(family_of(preset.family).denoiser).build_model
    model = build_model(preset, "meta", getattr(torch, preset.runtime.dtype))
    if preset.runtime.fp8:
        dit = quantised(dit, quantise_model(model))
    require_match(dit, model.state_dict(), "weights.dit")
    with torch.device("meta"):
        require_match(vae, CausalVae(preset.vae).state_dict(), "weights.vae")
    files = {entry.file for source in (dit, vae) for entry in source.entries.values()}
    return sum(Path(file).stat().st_size for file in files)


def encoders(asked: Asked) -> Finding:
    """Folders of the text encoders, and where there are any of the model that rewrites prompts and the image encoder:
    configuration, tokenizer and weights.
    """
    from gamecraft_core.weights.files import has_safetensors, open_safetensors
    from gamecraft_core.weights.readers import local, pick_text

    seen = []
    for preset in asked.presets:
        text, sight = preset.text, preset.vision.path if preset.vision else None
        places = {"text.llm": text.llm, "text.clip": text.clip, "text.rewrite": text.rewrite, "vision.path": sight}
        for field, place in places.items():
            if place is None:
                continue
            if place.startswith("s3://"):
                seen.append(f"{field}: {_remote_bytes(place, asked) / 2**30:.1f} GiB on S3")
                continue
            folder = local(place, field, pick_text)
            for names in (_CONFIGURED,) if field == "vision.path" else (_CONFIGURED, _TOKENIZED):
                if not any((folder / name).is_file() for name in names):
                    what = f"{folder} holds no {' or '.join(names)}"
                    raise UsageError(what, field=field, remedy="fetch the whole folder")
            if has_safetensors(folder) or preset.weights.kind != "random":
                open_safetensors(folder, field)
            seen.append(f"{field}: {folder.name}")
    return Finding("", "ok", ", ".join(dict.fromkeys(seen)))


def _remote_bytes(uri: str, asked: Asked) -> int:
    """What lies at ``uri``, a file or a folder on S3. UsageError where there is nothing."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    with suppress(FileNotFoundError):
        return open_store(parent, asked.options).stat(name).size
    found = sum(entry.size for entry in open_store(uri, asked.options).scan(""))
    if not found:
        raise UsageError(f"there is nothing at {uri}", remedy="correct the URI, or upload the weights")
    return found


CHECKS = (store, clock, weights, encoders)
