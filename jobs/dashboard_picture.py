"""The dashboard's panels as one picture, drawn from a Prometheus: what a reader sees without a Grafana at hand.

Queries are those of ``jobs.dashboard_rows``, with Grafana's variables replaced as Grafana would.
"""

from __future__ import annotations

import io
import json
import math
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from gamecraft_core.base.errors import UsageError
from jobs.dashboard import placed
from jobs.dashboard_panels import COLOURS, Panel, Unit
from jobs.dashboard_rows import ROWS

_DPI, _COLUMN, _LINE = 100, 0.7, 0.27
_POINTS = 240
_OTHERS = ("#60a5fa", "#f472b6", "#34d399", "#fbbf24", "#c084fc", "#fb7185", "#22d3ee", "#a3e635")
_PAGE, _BOX, _EDGE, _GRID, _TEXT, _FAINT = "#111217", "#181b1f", "#2c3036", "#24282e", "#d5d7dc", "#8e9196"


@dataclass(frozen=True, slots=True)
class Line:
    """One series as it is drawn; times in minutes before now."""

    legend: str
    minutes: list[float]
    values: list[float]


def substituted(expression: str, rate_interval: str) -> str:
    """``expression`` with every run chosen."""
    for name, value in {"$run": ".*", "$instance": ".*", "$__rate_interval": rate_interval}.items():
        expression = expression.replace(name, value)
    return expression


def draw(path: str, prometheus: str, minutes: float) -> None:
    """Write the picture of the last ``minutes`` to ``path``. Raises UsageError where Prometheus does not answer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    boxes, bottom = _boxes()
    figure = Figure(figsize=(24 * _COLUMN, bottom * _LINE), dpi=_DPI, facecolor=_PAGE)
    canvas = FigureCanvasAgg(figure)
    for thing, x, y, width, height in boxes:
        at = (x / 24, 1 - (y + height) / bottom, width / 24, height / bottom)
        if isinstance(thing, str):
            figure.text(at[0] + 0.006, at[1] + at[3] / 2, thing, color=_TEXT, size=12, weight="bold", va="center")
        else:
            _panel(figure, thing, at, _lines(thing, prometheus, minutes), minutes)
    drawn = io.BytesIO()
    canvas.print_png(drawn)  # type: ignore[no-untyped-call]
    few = Image.open(drawn).convert("RGB").quantize(96, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def _boxes() -> tuple[list[tuple[str | Panel, int, int, int, int]], int]:
    """Headings and panels with column, line, width and height; and the line below them all."""
    boxes: list[tuple[str | Panel, int, int, int, int]] = []
    top = 0
    for row in ROWS:
        boxes.append((row.title, 0, top, 24, 2))
        bottom = top + 2
        for panel, x, y, height in placed(row, top + 2):
            if not panel.optional:
                boxes.append((panel, x, y, panel.width, height))
                bottom = y + height
        top = bottom
    return boxes, top


def _lines(panel: Panel, prometheus: str, minutes: float) -> list[Line]:
    """What Prometheus has for ``panel``, the points that are numbers."""
    now, step = time.time(), max(1.0, 60 * minutes / _POINTS)
    lines = []
    for query in panel.queries:
        asked = substituted(query.expression, f"{max(20, round(4 * step))}s")
        for found in _asked(prometheus, query=asked, start=now - 60 * minutes, end=now, step=step):
            points = [(at, float(value)) for at, value in found["values"] if math.isfinite(float(value))]
            if points:
                legend = _legend(query.legend, found["metric"]) or panel.title
                lines.append(Line(legend, [(at - now) / 60 for at, _ in points], [value for _, value in points]))
    return lines


def _asked(prometheus: str, **query: Any) -> list[dict[str, Any]]:
    url = f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except OSError as error:
        raise UsageError(f"{prometheus}: {error}", field="--prometheus", remedy="start it, or name another") from error
    return found


def _legend(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip(" ,")


def _panel(figure: Any, panel: Panel, at: tuple[float, float, float, float], lines: list[Line], minutes: float) -> None:
    """A box with the panel's title, and in it the series or, of a stat, the last number over its course."""
    from matplotlib.patches import Rectangle

    left, bottom, width, height = at
    pad = 0.004
    box = Rectangle((left + pad / 2, bottom + pad / 4), width - pad, height - pad / 2, transform=figure.transFigure)
    box.set(facecolor=_BOX, edgecolor=_EDGE, linewidth=0.8, zorder=-1)
    figure.add_artist(box)
    line = _LINE / figure.get_figheight()  # of the dashboard's grid, as a share of the figure
    figure.text(left + 0.009, bottom + height - 0.75 * line, panel.title, color=_TEXT, size=9.5, va="center")
    if panel.stat:
        axes = figure.add_axes((left + 0.006, bottom + 0.35 * line, width - 0.012, height * 0.26))
        axes.axis("off")
        shown = _amount(lines[0].values[-1], panel.unit) if lines else "no data"
        figure.text(left + 0.009, bottom + 0.52 * height, shown, color="#73bf69", size=17, weight="bold", va="center")
    else:
        axes = figure.add_axes((left + 0.042, bottom + 2.0 * line, width - 0.052, height - 3.7 * line))
    _series(axes, panel, lines, minutes)


def _series(axes: Any, panel: Panel, lines: list[Line], minutes: float) -> None:
    axes.set_facecolor(_BOX)
    colours = _colours(lines)
    if panel.stacked:
        _stack(axes, lines, colours)
    for each, colour in zip(lines, colours, strict=True):
        if not panel.stacked:
            axes.plot(each.minutes, each.values, color=colour, linewidth=1.4, label=each.legend)
            if len(lines) < 3 or panel.stat:
                axes.fill_between(each.minutes, each.values, color=colour, alpha=0.1, linewidth=0)
    axes.set_xlim(-minutes, 0)
    highest = axes.get_ylim()[1] if lines else 1.0
    axes.set_ylim(
        0,
        1.05
        if panel.unit == "percentunit" and highest <= 1.1
        else highest
        if any(any(each.values) for each in lines)
        else 1.0,
    )
    if panel.stat:
        return
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_FAINT, labelsize=7.5, length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} min" if value else "now")
    axes.yaxis.set_major_formatter(lambda value, _: _amount(value, panel.unit))
    axes.locator_params(axis="y", nbins=4)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if lines:
        long = sum(len(each.legend) + 5 for each in lines) > 10 * panel.width
        columns = math.ceil(len(lines) / 2) if long else len(lines)
        beside = {"ncols": columns, "handlelength": 1.0, "columnspacing": 1.1, "borderpad": 0}
        look = {"fontsize": 7.5, "frameon": False, "labelcolor": _TEXT}
        axes.legend(loc="upper left", bbox_to_anchor=(-0.01, -0.14), **beside, **look)


def _stack(axes: Any, lines: list[Line], colours: list[str]) -> None:
    """One on the other; where one has no point it adds nothing."""
    moments = sorted({minute for each in lines for minute in each.minutes})
    known = [dict(zip(each.minutes, each.values, strict=True)) for each in lines]
    levels = [[values.get(minute, 0.0) for minute in moments] for values in known]
    if moments:
        axes.stackplot(moments, levels, colors=colours, labels=[each.legend for each in lines], alpha=0.75)


def _colours(lines: list[Line]) -> list[str]:
    """A stage has the same one everywhere."""
    others: Iterator[str] = cycle(_OTHERS)
    return [COLOURS.get(each.legend) or next(others) for each in lines]


def _amount(value: float, unit: Unit) -> str:
    """``value`` as a person would say it."""
    match unit:
        case "percentunit":
            return f"{100 * value:.0f} %"
        case "bytes" | "Bps":
            power = min(4, int(math.log(value, 1024))) if value >= 1 else 0
            name = ("B", "KiB", "MiB", "GiB", "TiB")[power] + ("/s" if unit == "Bps" else "")
            return f"{value / 1024**power:.3g} {name}"
        case "s" | "dtdurations":
            if value >= 120:
                return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"
            return f"{1000 * value:.3g} ms" if 0 < value < 1 else f"{value:.3g} s"
        case _:
            return f"{value:.3g}"
