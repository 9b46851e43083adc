"""Finds families' folders by the files in them, and the cases of one folder by the files' own metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
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
from tests.parity.cases.framepack import conditioning, runs, sampler, tables, transformer
from tests.parity.cases.hunyuan import dit as hunyuan_dit
from tests.parity.cases.hunyuan import keymap as hunyuan_keymap
from tests.parity.cases.hunyuan import loop, schedule
from tests.parity.cases.hunyuan import text as hunyuan_text
from tests.parity.cases.hunyuan import vae as hunyuan_vae
from tests.parity.check import Case, Check, Result, failure
from tests.parity.golden import Folder, Golden


@dataclass(frozen=True)
class Subject:
    """What one kind of file holds: the pattern of its stem, its cases, and which tensors need no comparison."""

    stem: str
    cases: Callable[[Folder, Golden], Iterator[Case]]
    inputs: str = ""


@dataclass(frozen=True)
class Table:
    """A JSON file by the pattern of its name, and its cases."""

    name: str
    cases: Callable[[Folder, str], Iterator[Case]]


@dataclass(frozen=True)
class Family:
    """What a family's folder holds; any file whose name matches ``mark`` tells that it is one."""

    name: str
    mark: str
    subjects: tuple[Subject, ...] = ()
    tables: tuple[Table, ...] = ()

    def subject(self, stem: str) -> Subject:
        """That of a file; one without cases for an unknown name, so that all of its tensors are told."""
        known = (subject for subject in self.subjects if re.fullmatch(subject.stem, stem))
        return next(known, Subject(stem, _nothing))


def _nothing(folder: Folder, file: Golden) -> Iterator[Case]:
    return iter(())


def _mark(subjects: Sequence[Subject], *names: str) -> str:
    """The names of the subjects' files, or one of ``names``."""
    return "|".join([rf"(?:{'|'.join(subject.stem for subject in subjects)})\.safetensors", *names])


_SUBJECTS = (
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
_HUNYUAN_TABLES = (
    Table(r"scheduler\.json", schedule.cases),
    Table(re.escape(hunyuan_text.IDS), hunyuan_text.id_cases),
    Table(re.escape(hunyuan_keymap.NAME), hunyuan_keymap.cases),
)
_TINY_WEIGHTS = Subject(r"\w+_tiny_weights", _nothing, r".*")
_HUNYUAN_SUBJECTS = (
    Subject(hunyuan_dit.STEM, hunyuan_dit.cases, hunyuan_dit.INPUTS),
    Subject(r"t2v_loop", loop.cases, loop.INPUTS),
    Subject(r"text_encode_io", hunyuan_text.cases, hunyuan_text.INPUTS),
    Subject(r"vae_tiny_io", hunyuan_vae.cases, hunyuan_vae.INPUTS),
)
_FRAMEPACK_SUBJECTS = (
    Subject(r"conditioning", conditioning.cases, conditioning.INPUTS),
    Subject(r"multi_section", runs.cases, runs.INPUTS),
    Subject(r"sampler_io", sampler.cases, sampler.INPUTS),
    Subject(transformer.STEM, transformer.cases, transformer.INPUTS),
)
_FRAMEPACK_TABLES = (
    Table(r"buckets_and_counts\.json", tables.bucket_cases),
    Table(r"sampler\.json", sampler.table_cases),
    Table(r"section_schedule\.json", tables.schedule_cases),
    Table(r"token_table\.json", tables.token_cases),
)
GAMECRAFT = "gamecraft"
FAMILIES = (
    Family(
        GAMECRAFT,
        _mark(_SUBJECTS, rf"{keymap.PREFIX}(?:dit|vae)\.json"),
        _SUBJECTS,
        (Table(re.escape(manifest.NAME), manifest.cases), Table(rf"{keymap.PREFIX}\w+\.json", keymap.cases)),
    ),
    Family(
        "hunyuanvideo",
        _mark(_HUNYUAN_SUBJECTS, *(table.name for table in _HUNYUAN_TABLES)),
        (*_HUNYUAN_SUBJECTS, _TINY_WEIGHTS),
        _HUNYUAN_TABLES,
    ),
    Family(
        "framepack",
        _mark(_FRAMEPACK_SUBJECTS, *(table.name for table in _FRAMEPACK_TABLES)),
        (*_FRAMEPACK_SUBJECTS, _TINY_WEIGHTS),
        _FRAMEPACK_TABLES,
    ),
)
#: How far below the given folder families are looked for.
_DEPTH = 3


@dataclass(frozen=True)
class Found:
    """A recognised folder; its label is its path below the folder that was searched."""

    path: Path
    label: str
    family: str
    is_built: bool


def families(root: Path) -> list[Found]:
    """Families at ``root`` itself or below; a family's folder is not searched further."""
    return list(_search(root, root.resolve().name, _DEPTH))


def _search(place: Path, label: str, depth: int) -> Iterator[Found]:
    if not place.is_dir():
        return
    family = _family_of(place)
    if family is not None:
        yield Found(place, re.sub(r"\s", "_", label), family.name, is_built=bool(family.subjects))
    elif depth:
        for entry in sorted(place.iterdir()):
            if entry.is_dir():
                yield from _search(entry, entry.name, depth - 1)


def _family_of(place: Path) -> Family | None:
    names = [entry.name for entry in place.iterdir() if entry.is_file()]
    marked = (family for family in FAMILIES if any(re.fullmatch(family.mark, name) for name in names))
    return next(marked, None)


def cases(folder: Folder) -> Iterator[Case]:
    """Every case of a family's folder, named ``label/file/case``. A file that cannot be read is a case that fails."""
    family = _known(folder)
    for path in sorted(folder.path.iterdir()):
        try:
            found = list(_of_file(family, folder, path))
        except Exception as error:
            found = [Case(path.stem, partial(_unreadable, error))]
        for case in found:
            yield Case(f"{folder.label}/{case.name}", case.run)


def _known(folder: Folder) -> Family:
    family = _family_of(folder.path)
    if family is None:
        raise ValueError(f"{folder.path} is no folder of a known family")
    return family


def _of_file(family: Family, folder: Folder, path: Path) -> Iterator[Case]:
    if path.suffix == ".safetensors":
        file = folder.golden(path.stem)
        for case in family.subject(path.stem).cases(folder, file):
            yield Case(f"{path.stem}/{case.name}", case.run)
    for table in family.tables:
        if re.fullmatch(table.name, path.name):
            yield from table.cases(folder, path.name)


def _unreadable(error: Exception, check: Check) -> None:
    raise error


def uncompared(folder: Folder) -> list[Result]:
    """After all cases ran: a failure for every stored tensor that none of them compared and that is no known input."""
    family = _known(folder)
    return [
        failure(f"{folder.label}/{stem}:{name}", "nothing compared this tensor")
        for stem, file in folder.opened.items()
        for name in file.uncompared()
        if not re.fullmatch(family.subject(stem).inputs, name)
    ]
