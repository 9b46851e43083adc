"""Finds families' folders by the files in them, and the cases of one folder by the files' own metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.parity.cases import (
    camera,
    camera_net,
    dit,
    fp8,
    image,
    keymap,
    manifest,
    pipeline,
    pipeline_inputs,
    rope,
    scheduler,
    text,
    vae,
)
from tests.parity.check import Case, Check, Result, failure
from tests.parity.golden import Folder, Golden


@dataclass(frozen=True)
class Subject:
    """What one kind of file holds: the pattern of its stem, its cases, and which tensors need no comparison."""

    stem: str
    cases: Callable[[Folder, Golden], Iterator[Case]]
    inputs: str = ""


SUBJECTS = (
    Subject(r"camera", camera.cases, camera.INPUTS),
    Subject(r"cameranet", camera_net.cases, camera_net.INPUTS),
    Subject(r"dit", dit.cases, dit.INPUTS),
    Subject(r"fp8_linear", fp8.cases, fp8.INPUTS),
    Subject(r"image_prep", image.cases, image.INPUTS),
    Subject(r"pipeline_inputs", pipeline_inputs.cases, pipeline_inputs.INPUTS),
    Subject(r"pipeline_(?!inputs$)\w+", pipeline.cases, pipeline.INPUTS),
    Subject(r"rope", rope.cases, rope.INPUTS),
    Subject(r"scheduler", scheduler.cases, scheduler.INPUTS),
    Subject(r"text_encoders", text.cases),
    Subject(r"vae_\d+", vae.cases, vae.INPUTS),
)
GAMECRAFT = "gamecraft"
#: What a family's folder is recognised by: any file of such a name.
_MARKS = {
    GAMECRAFT: rf"(?:{'|'.join(subject.stem for subject in SUBJECTS)})\.safetensors|{keymap.PREFIX}(?:dit|vae)\.json",
    "hunyuanvideo": r"(?:dit_tiny_io|t2v_loop|text_encode_io|vae_tiny_io)\.safetensors",
    "framepack": r"(?:transformer_tiny_io|multi_section|sampler_io|conditioning)\.safetensors",
}
#: How far below the given folder families are looked for.
_DEPTH = 3


@dataclass(frozen=True)
class Found:
    """A recognised folder; its label is its path below the folder that was searched."""

    path: Path
    label: str
    family: str

    @property
    def is_built(self) -> bool:
        return self.family == GAMECRAFT


def families(root: Path) -> list[Found]:
    """Families at ``root`` itself or below; a family's folder is not searched further."""
    return list(_search(root, root.resolve().name, _DEPTH))


def _search(place: Path, label: str, depth: int) -> Iterator[Found]:
    if not place.is_dir():
        return
    entries = sorted(place.iterdir())
    names = [entry.name for entry in entries if entry.is_file()]
    for family, mark in _MARKS.items():
        if any(re.fullmatch(mark, name) for name in names):
            yield Found(place, re.sub(r"\s", "_", label), family)
            return
    if depth:
        for entry in entries:
            if entry.is_dir():
                yield from _search(entry, entry.name, depth - 1)


def cases(folder: Folder) -> Iterator[Case]:
    """Every case of a folder, named ``label/file/case``. A file that cannot be read is a case that fails."""
    for path in sorted(folder.path.iterdir()):
        try:
            found = list(_of_file(folder, path))
        except Exception as error:
            found = [Case(path.stem, partial(_unreadable, error))]
        for case in found:
            yield Case(f"{folder.label}/{case.name}", case.run)


def _of_file(folder: Folder, path: Path) -> Iterator[Case]:
    if path.name == manifest.NAME:
        yield from manifest.cases(folder)
    elif path.suffix == ".safetensors":
        file = folder.golden(path.stem)
        for case in _subject(path.stem).cases(folder, file):
            yield Case(f"{path.stem}/{case.name}", case.run)
    elif path.name.startswith(keymap.PREFIX):
        yield keymap.case(folder, path.stem)


def _unreadable(error: Exception, check: Check) -> None:
    raise error


def uncompared(folder: Folder) -> list[Result]:
    """After all cases ran: a failure for every stored tensor that none of them compared and that is no known input."""
    return [
        failure(f"{folder.label}/{stem}:{name}", "nothing compared this tensor")
        for stem, file in folder.opened.items()
        for name in file.uncompared()
        if not re.fullmatch(_subject(stem).inputs, name)
    ]


def _subject(stem: str) -> Subject:
    """The subject of a file; one without cases for a file of an unknown name, so that all of its tensors are told."""
    known = (subject for subject in SUBJECTS if re.fullmatch(subject.stem, stem))
    return next(known, Subject(stem, lambda folder, file: iter(())))
