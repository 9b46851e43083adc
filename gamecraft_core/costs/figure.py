"""A number that says where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``measured``: by this software on the hardware named; ``assumed``: everything else, published figures included.
Basis = Literal["measured", "assumed"]


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` (seconds, unless its name says otherwise), how it is known, and from where."""

    value: float
    basis: Basis
    source: str


def weakest(*figures: Figure) -> Basis:
    """What a figure made of ``figures`` may claim: measured only if all of them are."""
    return "measured" if all(figure.basis == "measured" for figure in figures) else "assumed"
