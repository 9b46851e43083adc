"""The same cases as ``python -m tests.parity``, one test each: beside the repository where they are, and committed."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from tests.parity.__main__ import COMMITTED, SHARED
from tests.parity.cases.dit import predicted
from tests.parity.check import Case, Result, run
from tests.parity.discover import cases, families, uncompared
from tests.parity.golden import Folder

FOLDERS = [
    Folder(found.path, f"{place}/{found.label}")
    for place, root in (("shared", SHARED), ("committed", COMMITTED))
    for found in families(root)
]
CASES = {folder: list(cases(folder)) for folder in FOLDERS}
DIT_CASES = [
    pytest.param(folder, case, id=f"{folder.label}/{case['name']}")
    for folder in FOLDERS
    if folder.has("dit")
    for case in folder.golden("dit").header["cases"]
]


@cache
def result(case: Case) -> Result:
    return run(case)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for found in CASES.values() for case in found])
def test_case(case: Case) -> None:
    assert not result(case).reasons


@pytest.mark.parametrize("folder", [pytest.param(folder, id=folder.label) for folder in FOLDERS])
def test_every_stored_tensor_is_compared(folder: Folder) -> None:
    for case in CASES[folder]:
        result(case)
    assert not [missed.name for missed in uncompared(folder)]


@pytest.mark.parametrize(("folder", "case"), DIT_CASES)
def test_mixed_precision_loses_no_more_than_bf16_must(folder: Folder, case: dict[str, object]) -> None:
    """A guide of the fact sheet, not a demand of the format; the lower bound shows that bf16 was at work."""
    file = folder.golden("dit")
    stored = file.expected(f"{case['name']}.out")
    for row, (_, made) in enumerate(predicted(file, case, dtype=torch.bfloat16)):
        assert 1e-4 < float((made - stored[row]).abs().mean()) < 0.01, f"row {row}"
