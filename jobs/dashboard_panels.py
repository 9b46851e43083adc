"""What a dashboard is made of, as values: rows of panels, each with its queries and the runbooks that it leads to.

``OF`` in a query stands for what selects the runs that are looked at; without one it is about all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gamecraft_core.base.messages import STAGES

#: The selection by the dashboard's variables.
SELECTION = 'run=~"$run",instance=~"$instance"'

#: Grafana's names.
Unit = Literal["s", "short", "percentunit", "bytes", "Bps", "none", "dtdurations", "ops"]


@dataclass(frozen=True, slots=True)
class Query:
    """``legend`` names a series by its labels, as Grafana does: {{stage}}."""

    promql: str
    legend: str

    @property
    def expression(self) -> str:
        return self.promql.replace("{OF", "{" + SELECTION)


@dataclass(frozen=True, slots=True)
class Panel:
    """``width`` of 24; a stat is one number. ``optional``: from an exporter that need not be there."""

    title: str
    unit: Unit
    queries: tuple[Query, ...]
    text: str
    runbooks: tuple[str, ...] = ()
    width: int = 8
    stat: bool = False
    stacked: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def stat(title: str, unit: Unit, promql: str, text: str, *runbooks: str) -> Panel:
    return Panel(title, unit, (Query(promql, title),), text, runbooks, width=3, stat=True)


def quantiles(metric: str, by: str = "", name: str = "") -> tuple[Query, ...]:
    """Median and 95th percentile of a histogram."""
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by ({by}le) (rate({metric}_bucket{{OF}}[$__rate_interval])))",
            f"p{share[2:]:0<2}{name}",
        )
        for share in ("0.5", "0.95")
    )


def by_stage(metric: str) -> tuple[Query, ...]:
    return (Query(f"sum by (stage) ({metric}{{OF}})", "{{stage}}"),)


#: What a label's value is drawn in, wherever it comes.
COLOURS = dict(
    zip(
        ("queue", *STAGES, "active", "committed", "failed", "live", "missing"),
        ("#9ca3af", "#a78bfa", "#38bdf8", "#f97316", "#22c55e", "#eab308",
         "#38bdf8", "#22c55e", "#ef4444", "#f97316", "#ef4444"),
        strict=True,
    )
)  # fmt: skip
