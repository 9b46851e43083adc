"""One row's cells, read one by one: problems are noted, not raised, so that a row reports all of them at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.redact import redact

_SHOWN = 80
_LOOKED_AT = 2000


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field, and what to do about it."""

    field: str
    reason: str
    remedy: str


class Fields:
    """A row's cells by column name. An absent cell and a null are the same: the default applies."""

    def __init__(self, cells: Mapping[str, Any]) -> None:
        self._cells = cells
        self.problems: list[Problem] = []

    def refuse(self, field: str, reason: str, remedy: str) -> None:
        self.problems.append(Problem(field, reason, remedy))

    def caught(self, error: BadInput, field: str) -> None:
        """Note a BadInput, under its own field where it names one."""
        self.refuse(error.field or field, error.message, error.remedy)

    def get(self, field: str) -> Any:
        return self._cells.get(field)

    def has(self, field: str) -> bool:
        return self.get(field) is not None

    def text(self, field: str, default: str, *, max_length: int = 10_000) -> str:
        """A string that can be stored as UTF-8."""
        value = self.get(field)
        if value is None:
            return default
        if not isinstance(value, str):
            self.refuse(field, f"{shown(value)} is not text", "write it as a string")
        elif not _is_utf8(value):
            self.refuse(field, "the text is not valid UTF-8", "save the manifest as UTF-8")
        elif len(value) > max_length:
            self.refuse(field, f"{len(value)} characters are too many", f"use at most {max_length}")
        else:
            return value
        return default

    def number(self, field: str, default: float, low: float, high: float, *, open_low: bool = False) -> float:
        """A finite number within ``low``..``high`` (above ``low`` where ``open_low``)."""
        value = self.get(field)
        if value is None:
            return default
        number = as_number(value)
        interval = f"above {low:g} and at most {high:g}" if open_low else f"from {low:g} to {high:g}"
        if number is None:
            self.refuse(field, f"{shown(value)} is not a finite number", f"give a number {interval}")
        elif not low <= number <= high or (open_low and number == low):
            self.refuse(field, f"{shown(value)} is out of range", f"give a number {interval}")
        else:
            return number
        return default

    def integer(self, field: str, default: int, low: int, high: int) -> int:
        """A whole number within ``low``..``high``; a float that is whole will do."""
        value = self.get(field)
        if value is None:
            return default
        number = as_integer(value)
        if number is None:
            self.refuse(field, f"{shown(value)} is not a whole number", f"give one from {low} to {high}")
        elif not low <= number <= high:
            self.refuse(field, f"{shown(value)} is out of range", f"give a whole number from {low} to {high}")
        else:
            return number
        return default

    def choice(self, field: str, default: str, options: Iterable[str], what: str) -> str:
        """One of ``options``; ``what`` names their kind in the message."""
        value = self.get(field)
        if value is None:
            return default
        known = list(options)
        if isinstance(value, str) and value in known:
            return value
        self.refuse(field, f"unknown {what} {shown(value)}", meant(value, known))
        return default


def as_number(value: Any) -> float | None:
    """``value`` as a finite float, also from its decimal text; None for anything else (bools are no numbers)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_integer(value: Any) -> int | None:
    """``value`` as an int, exactly: 64-bit seeds do not pass through a float unless they came as one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    number = as_number(value)
    return int(number) if number is not None and number.is_integer() else None


def meant(value: Any, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest known one, or all of them."""
    options = list(known)
    near = get_close_matches(value[:_SHOWN], options, n=1) if isinstance(value, str) else []
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(options)}"


def shown(value: Any) -> str:
    """``value`` for a message: short, without credentials, and encodable whatever it holds."""
    try:
        text = redact(repr(value)[:_LOOKED_AT])
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return text.encode("utf-8", "backslashreplace").decode()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
