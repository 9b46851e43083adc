"""The README's plan of the distilled preset on 8xA100-80 is what the planner says, figures and sources alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs import plan
from jobs.plan_report import as_json, stage_figures

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- plan-table -->", "<!-- /plan-table -->"
GOALS = ("throughput", "latency", "sessions=4@100")


def planned(goal: str) -> plan.Plan:
    arguments = ["--preset", "gamecraft-distill", "--cluster", "8xA100-80", "--goal", goal]
    return plan.make(plan.parser().parse_args(arguments))


def table(plans: dict[str, plan.Plan]) -> Iterator[str]:
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
    written = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert written.strip() == said, f"the README's plan is out of date; between its markers belongs\n{said}"
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


def _rounded(figure: dict[str, Any]) -> float:
    return float(f"{figure['value']:.3g}")


def _p50(row: dict[str, Any]) -> float:
    return float(row["latency_p50_seconds"]["value"])
