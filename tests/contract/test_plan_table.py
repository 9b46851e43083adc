"""Tables of plans, in the README and in infra/operating.md, are what the planner says, figures and sources alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jobs import plan
from jobs.plan import Plan
from jobs.plan_report import as_json, stage_figures

ROOT = Path(__file__).resolve().parents[2]
GOALS = ("throughput", "latency", "sessions=4@100")
#: Nodes whose capacity is told, with settings beyond the preset's own.
NODES = (
    ("gamecraft-distill", "8xA100-80", ()),
    ("gamecraft-distill", "8xH100-80", ()),
    ("gamecraft-distill", "8xH100-80", ("runtime.fp8=true",)),
    ("gamecraft-distill", "8xH200", ()),
    ("gamecraft", "8xA100-80", ()),
    ("gamecraft", "8xH100-80", ()),
)
#: A night's work: clips of so many chunks, in so many hours.
CLIPS, CLIP_CHUNKS, NIGHT = 1_000_000, 3, 12


def planned(goal: str, preset: str = "gamecraft-distill", cluster: str = "8xA100-80", sets: Sequence[str] = ()) -> Plan:
    arguments = ["--preset", preset, "--cluster", cluster, "--goal", goal]
    return plan.make(plan.parser().parse_args([*arguments, *(part for each in sets for part in ("--set", each))]))


def written(page: str, name: str) -> str:
    """What stands between the markers ``name`` of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return text.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0].strip()


def table(plans: dict[str, Plan]) -> Iterator[str]:
    """Two tables in Markdown: a row for each goal, and the stage costs of all of them."""
    yield "| goal | layout | chunks an hour | p95 seconds of a chunk | reference's layout |"
    yield "| --- | --- | --- | --- | --- |"
    for goal, made in plans.items():
        row, base = made.choice.winner, made.reference
        yield (
            f"| `{goal}` | {row.name} | {row.chunks_per_hour:.0f} "
            f"({row.chunks_per_hour / base.chunks_per_hour:.2f} ×) | {row.latency_p95:.1f} "
            f"({row.latency_p95 / base.latency_p95:.2f} ×) | {base.chunks_per_hour:.0f}, {base.latency_p95:.1f} s |"
        )
    yield ""
    yield "| stage | seconds | known from |"
    yield "| --- | --- | --- |"
    figures = {name: figure for made in plans.values() for name, figure in stage_figures(made).items()}
    for name, figure in sorted(figures.items()):
        yield f"| {name} | {figure.value:.3g} | {figure.basis}: {figure.source} |"


def test_the_readme_says_what_the_planner_says() -> None:
    plans = {goal: planned(goal) for goal in GOALS}
    said = "\n".join(table(plans))
    assert written("README.md", "plan-table") == said, f"between the markers of the README's plan belongs\n{said}"
    for made in plans.values():
        values = as_json(made)
        best = {row["name"]: row["figures"] for row in values["layouts"]}
        most, least = (best[values["best"][kind]] for kind in ("throughput", "latency"))
        assert _rounded(most["chunks_per_hour"]) == max(_rounded(row["chunks_per_hour"]) for row in best.values())
        assert least["latency_p50_seconds"]["value"] <= min(_p50(row) for row in best.values()) + 0.001
        told = [*values["stage_seconds"].values(), *values["assumptions"].values()]
        told += [figure for row in (*values["layouts"], values["reference"]) for figure in row["figures"].values()]
        assert all(figure["basis"] in ("measured", "assumed") and figure["source"] for figure in told)
        assert not any(figure["basis"] == "measured" for figure in told), "nothing was measured on A100"


def capacities() -> Iterator[str]:
    """A table in Markdown: what one node makes, and what it costs."""
    yield "| preset | node | best layout | chunks an hour | a day | a minute of it | nodes for a night's million |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for preset, cluster, sets in NODES:
        made = planned("throughput", preset, cluster, sets)
        row, video = made.choice.winner, made.preset.video
        minutes = row.chunks_per_hour * 24 * video.chunk_frames / video.fps / 60
        nodes = math.ceil(CLIPS * CLIP_CHUNKS / (row.chunks_per_hour * NIGHT))
        name = " ".join((preset, *(f"`{each}`" for each in sets)))
        yield (
            f"| {name} | {cluster} | {row.name} | {row.chunks_per_hour:.0f} | {minutes:.0f} min | "
            f"${60 * row.price_per_video_second:.2f} | {nodes:,} |"
        )


def test_the_capacities_are_what_the_planner_says() -> None:
    said = "\n".join(capacities())
    assert written("infra/operating.md", "capacity") == said, (
        f"between the markers of infra/operating.md belongs\n{said}"
    )


def _rounded(figure: dict[str, Any]) -> float:
    return float(f"{figure['value']:.3g}")


def _p50(row: dict[str, Any]) -> float:
    return float(row["latency_p50_seconds"]["value"])
