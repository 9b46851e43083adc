"""The error tree: verdicts, readable text, and survival of the trip between processes."""

from __future__ import annotations

import pickle

import pytest

from gamecraft_core.base import errors
from gamecraft_core.base.errors import FramelaneError

TREE = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FramelaneError)]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_survives_pickling(kind: type[FramelaneError]) -> None:
    error = kind("speed is NaN", field="actions[2].speed", remedy="give a number")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (back.message, back.field, back.remedy, back.verdict) == (
        "speed is NaN",
        "actions[2].speed",
        "give a number",
        kind.verdict,
    )
    assert str(back) == str(error) == "actions[2].speed: speed is NaN (give a number)"


@pytest.mark.parametrize(
    ("field", "remedy", "text"),
    [("", "", "bad"), ("seed", "", "seed: bad"), ("", "do better", "bad (do better)")],
)
def test_text_names_what_is_known(field: str, remedy: str, text: str) -> None:
    assert str(FramelaneError("bad", field=field, remedy=remedy)) == text


def test_verdicts() -> None:
    verdicts = {kind.__name__: kind.verdict for kind in TREE}
    assert {verdicts.pop(name) for name in ("LaneLost", "LaneHung", "NoRoom", "OutOfMemory")} == {"retry"}
    assert verdicts.pop("StateLost") == "rewind"
    assert verdicts.pop("Poisoned") == "quarantine"
    assert verdicts.pop("StoreUnavailable") == "wait"
    assert {"BadInput", "UsageError", "OutputTaken", "WeightsError"} <= set(verdicts)
    assert set(verdicts.values()) == {"refuse"}
