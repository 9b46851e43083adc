"""Ids: nothing but plain ASCII gets through, on any file system no two mean one file, and none leaves the output."""

from __future__ import annotations

import os
import string
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.ids import check_id, folded
from gamecraft_core.base.store import clean_key, open_store
from gamecraft_core.dataset import layout
from orchestrator.manifest.manifest import Manifest
from orchestrator.manifest.rows import RowErrors
from tests.fakes.malformed import TRICKS, row
from tests.fakes.malformed_files import picture
from tests.fakes.presets import tiny_preset

KEYS = (layout.commit_key, layout.failure_key)

#: Every character whose compatibility form (NFKC) holds a plain one that would be legal, or one that separates.
LOOKALIKES = [
    letter
    for letter in map(chr, range(128, 0x20000))
    if set(unicodedata.normalize("NFKC", letter)) & set(string.ascii_letters + string.digits + "./\\-_")
]


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_no_id(trick: str) -> None:
    for take in (check_id, *KEYS):
        with pytest.raises(BadInput) as caught:
            take(TRICKS[trick])
        assert caught.value.remedy
        caught.value.message.encode()


def test_no_lookalike_is_taken_anywhere_in_an_id() -> None:
    assert len(LOOKALIKES) > 1000
    for letter in LOOKALIKES:
        for value in (letter, f"a{letter}", f"{letter}a", f"a{letter}b"):
            with pytest.raises(BadInput):
                check_id(value)


@given(st.text(st.characters() | st.sampled_from("./\\-_aA0\u202e\u200b．／"), max_size=130))
def test_what_is_an_id_stays_below_the_root(value: str) -> None:
    try:
        check_id(value)
    except BadInput:
        return
    assert value.isascii()
    assert value == unicodedata.normalize("NFKC", value)
    assert value.isprintable()
    for key in KEYS:
        name = clean_key(key(value))
        assert os.path.normpath(f"/out/{name}") == f"/out/{name}"
        assert len(name.rpartition("/")[2]) <= 255


@pytest.mark.parametrize("name", ["con", "NUL", "aux.v1", "com1", "LPT9.txt"])
def test_a_device_is_no_id_but_a_word_that_begins_with_one_is(name: str) -> None:
    with pytest.raises(BadInput):
        check_id(name)
    assert check_id(f"{name.replace('.', '')}-walk")


def test_ids_that_differ_in_capitals_alone_are_one(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(picture("PNG"))
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b"\n".join(row(session_id=name) for name in ("Walk", "walk", "WALK", "walk-2")))
    preset = tiny_preset()
    found = list(Manifest(str(path), {preset.name: preset}, preset.name).rows())
    assert [isinstance(each, RowErrors) for each in found] == [False, True, True, False]
    assert isinstance(found[1], RowErrors)
    assert found[1].errors[0].field == "session_id"
    assert folded("Walk") == folded("wALK") != folded("walk-2")


@pytest.mark.parametrize("key", ["../a", "a/../../b", "/etc/passwd", "a//b", "a/./b", "a\\b", "a\0b", ".tmp-a", ""])
def test_no_key_leaves_a_store(tmp_path: Path, key: str) -> None:
    store = open_store(str(tmp_path / "out"))
    for act in (store.get, store.delete, store.exists, store.stat, lambda key: store.put(key, b"x")):
        with pytest.raises(ValueError, match="illegal store key"):
            act(key)
    assert not list(tmp_path.rglob("*"))
