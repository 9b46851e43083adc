"""A plan in words: the table that a person reads, and the same as JSON, where every figure says how it is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gamecraft_core.costs.figure import Figure
from orchestrator.plan.goals import Goal, choose

if TYPE_CHECKING:
    from jobs.plan import Plan
    from orchestrator.plan.predict import Row


_ALWAYS = "the loss of stages that share a card, the store and memory"


def stage_figures(plan: Plan) -> dict[str, Figure]:
    """The stage costs that the shown layouts are made of, by name."""
    costs, winner = plan.costs, plan.choice.winner
    degrees = {1, plan.cluster.cards} | ({degree for degree, _ in winner.layout.groups} if winner.layout else set())
    split = bool(winner.layout and winner.layout.split)
    found = {"text on card": costs.text()}
    if plan.cluster.card_name != "cpu":
        found["text on host"] = costs.text(host=True)
    if "image" in costs.family.family.starts:
        found["encode an image"] = costs.encode()
    for degree in sorted(degrees):
        for continuing, which in _which(plan):
            halves = split and degree % 2 == 0
            cost = costs.denoise(degree, split=halves, continuing=continuing)
            found[f"denoise {which}, SP{degree}" + (", guidance split" if halves else "")] = cost.seconds
    opening, decode = (costs.decode(continuing=each) for each in (False, True))
    if opening != decode and plan.chunks > 1:
        found["decode first chunk"] = opening
    found |= {"decode": decode, "encode video": costs.encode_video(), "write": costs.write()}
    words = plan.hardware.sources
    return {name: replace(figure, source=words.get(figure.source, figure.source)) for name, figure in found.items()}


def _which(plan: Plan) -> tuple[tuple[bool, str], ...]:
    """Whether it continues, and the name, of each kind of chunk that the plan has."""
    if not plan.costs.family.continues:
        return ((False, "whole video"),)
    return (False, "first chunk"), (True, "next chunk")


def assumptions(plan: Plan) -> Iterator[tuple[str, float, str]]:
    """(name, value, source in words) of every number of the table that the plan used."""
    hardware, sources = plan.hardware, plan.hardware.sources
    card = plan.cluster.card
    for name, entry in (*card, *((f"{key} efficiency", each) for key, each in card.efficiency)):
        if hasattr(entry, "source"):
            price = name == "price_per_hour" and plan.price != entry.value
            value, source = (plan.price, "given with --price") if price else (entry.value, sources[entry.source])
            yield f"{plan.cluster.card_name} {name.replace('_', ' ')}", value, source
    for dtype, entry in card.peak_tflops.items():
        yield f"{plan.cluster.card_name} peak TFLOP/s {dtype}", entry.value, sources[entry.source]
    for name, entry in hardware.common:
        if isinstance(entry, dict):
            for degree, each in entry.items():
                yield f"{name.replace('_', ' ')} at SP{degree}", each.value, sources[each.source]
        else:
            yield name.replace("_", " "), entry.value, sources[entry.source]


def why(plan: Plan) -> list[str]:
    """The winner, what bounds it, and how it stands to the reference's layout and to the runner-up of another cut."""
    row, base, nodes = plan.choice.winner, plan.reference, plan.cluster.nodes
    lines = [f"Best for {plan.goal_text}: {row.name}" + (f", on each of {nodes} nodes" if nodes > 1 else "") + "."]
    if not plan.choice.met:
        lines.append(
            f"No layout keeps {plan.goal.sessions} sessions within {plan.goal.slo:g} s; this one comes nearest "
            f"({row.latency_p95:.1f} s at p95)."
        )
    lines.append(
        f"Against the reference's layout: {row.chunks_per_hour / base.chunks_per_hour:.2f} × the chunks an hour, "
        f"{row.latency_p50 / base.latency_p50:.2f} × the latency of a chunk, of {_players(plan)}."
    )
    lines.append(f"It is bound by {row.bound}.")
    lines += _other_bests(plan)
    other = next((each for each in plan.choice.ranked if each.layout and not _same_cut(each, row)), None)
    if other is not None:
        lines.append(
            f"The next other cut, {other.name}: {nodes * other.chunks_per_hour:.1f} chunks an hour, "
            f"{other.latency_p95:.1f} s at p95; bound by {other.bound}."
        )
    if plan.preset.sampling.tea_cache:
        lines.append("Every step is counted in full: what TeaCache leaves out depends on the video.")
    if plan.excluded:
        room = plan.cluster.card.memory_gib.value
        lines.append(f"{plan.excluded} layouts do not fit {room:g} GiB a card and are left out.")
    return lines


def bests(plan: Plan) -> dict[str, Row]:
    """What would win for throughput, and what for latency, whatever was asked for."""
    rows, sessions = plan.choice.ranked, plan.goal.sessions
    return {
        "throughput": choose(Goal("throughput"), rows).winner,
        "latency": choose(Goal("latency", sessions), rows).winner,
    }


def _other_bests(plan: Plan) -> Iterator[str]:
    base = plan.reference
    for kind, best in bests(plan).items():
        if kind != plan.goal.kind:
            yield (
                f"Best for {kind}, {best.name}: {plan.cluster.nodes * best.chunks_per_hour:.1f} chunks an hour, "
                f"{best.chunks_per_hour / base.chunks_per_hour:.2f} × the reference's, and "
                f"{best.latency_p95:.1f} s at p95, {best.latency_p95 / base.latency_p95:.2f} × the reference's."
            )


def _players(plan: Plan) -> str:
    return "one session alone" if plan.goal.sessions == 1 else f"{plan.goal.sessions} sessions at once"


def _length(plan: Plan) -> str:
    if not plan.costs.family.continues:
        return "one chunk, a whole video"
    known = ", all controls known" if plan.costs.family.family.length == "actions" else ""
    return f"{plan.chunks} chunks{known}"


def _turns(plan: Plan) -> str:
    if plan.costs.family.family.length == "actions":
        return "the next control given when a chunk is seen; from control to decoded video"
    return "from a chunk's release to its decoded video"


def _same_cut(one: Row, other: Row) -> bool:
    return bool(one.layout and other.layout and one.layout.groups == other.layout.groups)


def print_table(plan: Plan, count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=180)
    table = Table(title=f"{plan.preset.name} on {plan.cluster.text}, goal {plan.goal_text}", title_justify="left")
    table.add_column("layout", no_wrap=True)
    for head in ("chunks/h", "×ref", "p50 s", "p95 s", "first s", "card-s/video-s", "$/video-s", "GiB"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("costs", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    shown = dict.fromkeys([*plan.choice.ranked[:count], *bests(plan).values(), plan.reference])
    for row in shown:
        style = "bold" if row is plan.choice.winner else "dim" if row.layout is None else ""
        table.add_row(*_cells(row, plan), style=style)
    console.print(table)
    for line in why(plan):
        console.print(line, highlight=False)
    console.print(
        f"\nchunks/h: {plan.sessions} sessions a node of {_length(plan)}. Latency: {_players(plan)}, {_turns(plan)}. "
        "GiB: on the fullest card. "
        f"costs: how the stage costs of the row are known; {_ALWAYS} are always assumed.",
        highlight=False,
    )
    console.print("\nStage seconds, each on cards of its own:", highlight=False)
    for name, figure in stage_figures(plan).items():
        console.print(f"  {name:34} {figure.value:9.3f}  {figure.basis}: {figure.source}", highlight=False)
    console.print("\nNumbers they rest on, with their sources:", highlight=False)
    for name, value, source in assumptions(plan):
        console.print(f"  {name:34} {value:9.4g}  assumed: {source}", highlight=False)


def _cells(row: Row, plan: Plan) -> list[str]:
    return [
        row.name,
        f"{plan.cluster.nodes * row.chunks_per_hour:.1f}",
        f"{row.chunks_per_hour / plan.reference.chunks_per_hour:.2f}",
        f"{row.latency_p50:.2f}",
        f"{row.latency_p95:.2f}",
        f"{row.first_chunk:.2f}",
        f"{row.card_seconds_per_video_second:.1f}",
        f"{row.price_per_video_second:.2g}",
        f"{row.memory / 2**30:.1f}",
        row.basis,
        row.bound.partition(":")[0],
    ]


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything, as JSON values."""
    return {
        "preset": plan.preset.name,
        "cluster": plan.cluster.text,
        "nodes": plan.cluster.nodes,
        "goal": plan.goal_text,
        "met": plan.choice.met,
        "load": {"sessions_a_node": plan.sessions, "chunks": plan.chunks, "live_sessions": plan.goal.sessions},
        "winner": plan.choice.winner.name,
        "best": {kind: row.name for kind, row in bests(plan).items()},
        "why": why(plan),
        "excluded_by_memory": plan.excluded,
        "layouts": [_row_json(row, plan) for row in plan.choice.ranked],
        "reference": _row_json(plan.reference, plan),
        "stage_seconds": {
            name: {"value": figure.value, "basis": figure.basis, "source": figure.source}
            for name, figure in stage_figures(plan).items()
        },
        "assumptions": {
            name: {"value": value, "basis": "assumed", "source": source} for name, value, source in assumptions(plan)
        },
    }


def _row_json(row: Row, plan: Plan) -> dict[str, Any]:
    figures = {
        "chunks_per_hour": plan.cluster.nodes * row.chunks_per_hour,
        "latency_p50_seconds": row.latency_p50,
        "latency_p95_seconds": row.latency_p95,
        "first_chunk_seconds": row.first_chunk,
        "card_seconds_per_video_second": row.card_seconds_per_video_second,
        "dollars_per_video_second": row.price_per_video_second,
        "memory_gib": row.memory / 2**30,
    }
    source = f"simulated from stage_seconds; {_ALWAYS} assumed" if row.layout else "sum of stage_seconds"
    told = {
        name: {
            "value": value,
            "basis": "assumed" if name == "memory_gib" else row.basis,
            "source": "footprint" if name == "memory_gib" else source,
        }
        for name, value in figures.items()
    }
    return {"name": row.name, "figures": told, "bound": row.bound}


def print_json(plan: Plan) -> None:
    print(json.dumps(as_json(plan), indent=1, ensure_ascii=False))
