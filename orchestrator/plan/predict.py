"""From a layout and stage costs to the figures of a row: throughput, latency, price, and what bounds it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gamecraft_core.costs.figure import Basis, Figure, weakest
from orchestrator.plan.layouts import Layout, Seat, seats
from orchestrator.plan.load import Load, Outcome, simulate
from orchestrator.simulation.lanes import SimLane
from orchestrator.simulation.times import Constant

_WRITE_LANES, _WRITE_DEPTH = 4, 8


class DenoiseSeconds(Protocol):
    """One chunk on a group, and the part of it that goes to exchanges and losses between ranks."""

    @property
    def seconds(self) -> Figure: ...
    @property
    def apart(self) -> float: ...


class Costs(Protocol):
    """Seconds of every stage, each on cards of its own."""

    def text(self, *, host: bool = False, offloaded: bool = False) -> Figure: ...
    def encode(self) -> Figure: ...
    def decode(self, devices: int = 1, *, continuing: bool = True) -> Figure: ...
    def encode_video(self) -> Figure: ...
    def write(self) -> Figure: ...
    def denoise(self, degree: int = 1, *, split: bool = False, continuing: bool = True) -> DenoiseSeconds: ...


@dataclass(frozen=True, slots=True)
class Video:
    """What a chunk is worth, and what a card costs."""

    seconds_a_chunk: float
    price_per_hour: float


@dataclass(frozen=True, slots=True)
class Row:
    """One layout's predictions for a node. ``bound`` is in words; ``basis`` that of the weakest cost in it."""

    name: str
    layout: Layout | None
    chunks_per_hour: float
    latency_p50: float
    latency_p95: float
    first_chunk: float
    card_seconds_per_video_second: float
    price_per_video_second: float
    memory: int
    bound: str
    basis: Basis


def lanes_of(layout: Layout, costs: Costs) -> list[SimLane]:
    """Every lane of ``layout``, the largest denoise groups first: a free one is taken in this order."""
    write = Constant(costs.write().value)
    return [
        *(_lane(seat, layout, costs) for seat in seats(layout)),
        *(SimLane(f"write-{n}", "write", write, serial=False, depth=_WRITE_DEPTH) for n in range(_WRITE_LANES)),
    ]


def _lane(seat: Seat, layout: Layout, costs: Costs) -> SimLane:
    first: Figure | None = None
    after: Figure | None = None
    match seat.stage:
        case "denoise":
            first, seconds = (_denoise(seat.degree, layout, costs, continuing=each) for each in (False, True))
        case "decode":
            first, seconds = (costs.decode(len(seat.cards), continuing=each) for each in (False, True))
            after = costs.encode_video()
        case "text":
            seconds = costs.text(host=layout.text == "host")
        case _:
            seconds = costs.encode()
    return SimLane(
        f"{seat.stage}-{seat.number}",
        seat.stage,
        Constant(seconds.value),
        first=Constant(first.value) if first else None,
        after=Constant(after.value) if after else None,
        cards=seat.cards,
        sp_degree=seat.degree,
    )


def _denoise(degree: int, layout: Layout, costs: Costs, *, continuing: bool) -> Figure:
    return costs.denoise(degree, split=layout.split, continuing=continuing).seconds


def predict(layout: Layout, costs: Costs, full: Load, live: Load, video: Video, loss: float, memory: int) -> Row:
    """The row of one node: throughput under ``full``, latencies under ``live``, whose players are out of step.

    They come spread over the time of a chunk: in step, they would never share a card.
    """
    lanes = lanes_of(layout, costs)
    chunk = _denoise(layout.groups[0][0], layout, costs, continuing=True).value + costs.decode(layout.spread).value
    live = replace(live, apart=chunk / live.sessions)
    busy = simulate(lanes, full, loss)
    played = simulate(lanes, live, loss)
    return Row(
        name=layout.name,
        layout=layout,
        chunks_per_hour=3600 * busy.chunks / busy.makespan,
        latency_p50=percentile(played.latencies or played.firsts, 0.5),
        latency_p95=percentile(played.latencies or played.firsts, 0.95),
        first_chunk=percentile(played.firsts, 0.5),
        **_price(layout.cards, busy.makespan / busy.chunks, video),
        memory=memory,
        bound=bound(layout, busy, costs),
        basis=weakest(*_figures(layout, costs)),
    )


def reference(cards: int, costs: Costs, live: Load, video: Video, memory: int, *, offloaded: bool) -> Row:
    """The published program's own layout: all cards one group, and for every chunk denoise, decode, encoding.

    One that is played encodes its prompt for every chunk, too. It knows one session; several are taken to have their
    chunks in turn.
    """
    text = costs.text(offloaded=offloaded)
    first, later = (costs.denoise(cards, continuing=each).seconds for each in (False, True))
    opening, decode = (costs.decode(continuing=each) for each in (False, True))
    begin = costs.encode().value + text.value + first.value + opening.value + costs.encode_video().value
    chunk = later.value + decode.value + costs.encode_video().value + (text.value if live.played else 0.0)
    if live.chunks == 1:
        chunk = begin
    seconds = (begin + (live.chunks - 1) * chunk) / live.chunks
    return Row(
        name=f"reference: 1×SP{cards}, stage after stage" + (", text offloaded" if offloaded else ""),
        layout=None,
        chunks_per_hour=3600 / seconds,
        latency_p50=live.sessions * chunk,
        latency_p95=live.sessions * chunk,
        first_chunk=math.ceil(live.sessions / 2) * (begin + live.opening * chunk),
        **_price(cards, seconds, video),
        memory=memory,
        bound=f"one stage at a time: denoise {later.value / chunk:.0%}, decode {decode.value / chunk:.0%} of a chunk",
        basis=weakest(text, first, later, costs.encode(), opening, decode, costs.encode_video()),
    )


def _price(cards: int, seconds_a_chunk: float, video: Video) -> dict[str, float]:
    card_seconds = cards * seconds_a_chunk / video.seconds_a_chunk
    return {
        "card_seconds_per_video_second": card_seconds,
        "price_per_video_second": card_seconds * video.price_per_hour / 3600,
    }


def _figures(layout: Layout, costs: Costs) -> list[Figure]:
    denoise = [
        _denoise(degree, layout, costs, continuing=each) for degree, _ in layout.groups for each in (False, True)
    ]
    return [
        *denoise,
        *(costs.decode(layout.spread, continuing=each) for each in (False, True)),
        costs.encode(),
        costs.encode_video(),
        costs.text(host=layout.text == "host"),
    ]


def bound(layout: Layout, outcome: Outcome, costs: Costs) -> str:
    """The stage whose lanes are busiest under full load, and where a denoise's time goes."""
    counts = {"denoise": layout.lanes, "decode": layout.decode_lanes, "text": 1, "encode": 1}
    shares = {stage: outcome.busy[stage] / (count * outcome.makespan) for stage, count in counts.items()}
    stage = max(shares, key=lambda each: shares[each])
    if stage != "denoise":
        return f"{stage}: its lanes are busy {shares[stage]:.0%}, denoise {shares['denoise']:.0%} of the time"
    busy = outcome.busy["denoise"]
    total = apart = 0.0
    for degree, count in layout.groups:
        cost = costs.denoise(degree, split=layout.split)
        total += count * cost.seconds.value / degree
        apart += count * cost.apart / degree
    parts = {"communication": apart / total, "sharing its cards": 1 - outcome.alone["denoise"] / busy}
    told = ", ".join(f"{name} {share:.0%}" for name, share in parts.items() if share >= 0.005)
    return f"denoise: its lanes are busy {shares['denoise']:.0%} of the time" + (f" (of it {told})" if told else "")


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
