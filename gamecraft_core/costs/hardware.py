"""Cards and the assumptions about them, as data: every number names its source. Pure; the YAML is read by ``jobs``."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.preset import Strict
from gamecraft_core.costs.work import Work

_GIGA, _TERA, _PETA = 1e9, 1e12, 1e15


class Sourced(Strict):
    """A number and the key of its source in the table's ``sources``."""

    value: float = Field(ge=0)
    source: str


class Efficiency(Strict):
    """The share of a card's peak that real kernels reach, by kind of work."""

    matmul: Sourced
    attention: Sourced
    conv: Sourced


class Card(Strict):
    """One kind of accelerator; ``per_node`` of them share a link. For ``cpu`` a card is one core."""

    device_names: tuple[str, ...] = Field(min_length=1)
    per_node: int = Field(ge=1)
    peak_tflops: dict[str, Sourced]
    memory_gib: Sourced
    memory_gbps: Sourced
    link_gbps: Sourced
    host_gbps: Sourced
    efficiency: Efficiency
    price_per_hour: Sourced
    #: What a process holds beside its weights and tensors.
    process_gib: Sourced

    def flops(self, dtype: str) -> float:
        """Peak operations a second; UsageError where the card has no units for ``dtype``."""
        if dtype not in self.peak_tflops:
            raise UsageError(
                f"{self.device_names[0]} has no {dtype} units",
                field="runtime",
                remedy=f"use {' or '.join(self.peak_tflops)}",
            )
        return self.peak_tflops[dtype].value * _TERA


class Common(Strict):
    """What is assumed of every card.

    ``sp_seconds_per_pflop``: seconds that a group loses beside its division of work, by its degree, for each
    PFLOP of the whole forward.
    """

    link_efficiency: Sourced
    host_efficiency: Sourced
    memory_efficiency: Sourced
    exchange_seconds: Sourced
    sp_seconds_per_pflop: dict[int, Sourced]
    sharing_loss: Sourced
    video_pixels_per_second: Sourced
    write_seconds: Sourced
    host_text_cores: Sourced


class Hardware(Strict):
    """The whole table."""

    sources: dict[str, str]
    common: Common
    cards: dict[str, Card]

    @model_validator(mode="after")
    def _all_sourced(self) -> Hardware:
        cited = _cited(self.common.model_dump()) | _cited(
            {name: card.model_dump() for name, card in self.cards.items()}
        )
        if missing := sorted(cited - self.sources.keys()):
            raise ValueError(f"no source is called {', '.join(missing)}")
        return self


def _cited(values: object) -> set[str]:
    if not isinstance(values, dict):
        return set()
    if isinstance(values.get("source"), str):
        return {values["source"]}
    return {key for each in values.values() for key in _cited(each)}


def compute_seconds(work: Work, card: Card, common: Common, dtype: str, *, fp8: bool = False) -> float:
    """Of the device alone: its units at their stated efficiencies, or reading the weights where that takes longer."""
    peak, efficiency = card.flops(dtype), card.efficiency
    units = work.matmul / (card.flops("float8") if fp8 else peak) / efficiency.matmul.value
    units += work.attention / (peak * efficiency.attention.value) + work.conv / (peak * efficiency.conv.value)
    return max(units, work.weight_bytes / (card.memory_gbps.value * _GIGA * common.memory_efficiency.value))


def host_seconds(work: Work, card: Card, common: Common) -> float:
    return work.host_bytes / (card.host_gbps.value * _GIGA * common.host_efficiency.value)


def exchange_seconds(work: Work, card: Card, common: Common) -> float:
    """What the collectives of a group take, by bytes and by their number."""
    travel = work.link_bytes / (card.link_gbps.value * _GIGA * common.link_efficiency.value)
    return travel + work.exchanges * common.exchange_seconds.value


def sp_loss_seconds(flops: float, degree: int, common: Common) -> float:
    """Seconds lost by a group of ``degree`` over a forward (or chunk) of ``flops`` in all.

    Between the degrees of the table, and beyond the last, along the logarithm of the degree.
    """
    table = sorted((known, entry.value) for known, entry in common.sp_seconds_per_pflop.items())
    below = max(entry for entry in table if entry[0] <= degree)
    above = next((entry for entry in table if entry[0] > degree), None)
    if below[0] == degree or len(table) == 1:
        return below[1] * flops / _PETA
    if above is None:
        below, above = table[-2:]
    share = math.log(degree / below[0]) / math.log(above[0] / below[0])
    return (below[1] + share * (above[1] - below[1])) * flops / _PETA
