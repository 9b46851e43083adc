"""Identifiers: the legal ones, the refused ones, and digests that depend on content only."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.ids import canonical_json, check_id, digest
from gamecraft_core.base.store import clean_key

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("value", ["a", "7", "a.b-c_d", "A" * 128, "walk.01.v2"])
def test_legal_ids(value: str) -> None:
    assert check_id(value) == value
    assert clean_key(f"videos/{value}") == f"videos/{value}"


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", ".a", "a.", "a..b", "-a", "_a", "a/b", "a\\b", "a b", "a\n", "é", "a\0", "A" * 129, "a%2e", "../x"],
)
def test_illegal_ids_name_field_and_remedy(value: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_id(value, field="tenant")
    assert caught.value.field == "tenant"
    assert "letters, digits" in caught.value.remedy


@given(st.text(max_size=140))
def test_what_passes_is_one_safe_segment(value: str) -> None:
    try:
        check_id(value)
    except BadInput:
        return
    assert clean_key(value) == value
    assert "/" not in value
    assert value.isascii()


@given(values)
def test_canonical_json_is_json_with_one_spelling(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


def test_digest_depends_on_content_not_on_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1, "b": [2]}) != digest({"a": 1, "b": [3]})
    assert digest([1, 2]) != digest([2, 1])
    # SHA-256 of the two bytes {}
    assert digest({}) == "44136fa355b3678a"
    assert len(digest({}, length=40)) == 40


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_digest_refuses_what_json_cannot_say(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest(value)
