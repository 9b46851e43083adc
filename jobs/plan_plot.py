"""A plan as a picture: every layout by its latency and its chunks an hour, in SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from gamecraft_core.base.errors import UsageError

if TYPE_CHECKING:
    from jobs.plan import Plan

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 960, 560, 80, 60, 40, 70
_COLOURS = {"winner": "#c2410c", "reference": "#1d4ed8", "layout": "#78716c"}
_TICKS = 5


def check_plot(path: str) -> None:
    """Refuse a name that is no SVG before anything is computed."""
    if not path.endswith(".svg"):
        raise UsageError(f"{path} is no picture that can be drawn", field="--plot", remedy="name a FILE.svg")


def write_plot(path: str, plan: Plan) -> None:
    try:
        Path(path).write_text(drawing(plan), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", field="--plot", remedy="check it") from error


def drawing(plan: Plan) -> str:
    """The whole SVG. A point says its layout when it is pointed at."""
    winner, nodes = plan.choice.winner, plan.cluster.nodes
    rows = [("layout", row) for row in plan.choice.ranked[1:]] + [("reference", plan.reference), ("winner", winner)]
    most_x = 1.1 * max(row.latency_p50 for _, row in rows)
    most_y = 1.15 * nodes * max(row.chunks_per_hour for _, row in rows)

    def x(seconds: float) -> float:
        return _LEFT + seconds / most_x * (_WIDTH - _LEFT - _RIGHT)

    def y(chunks: float) -> float:
        return _HEIGHT - _BOTTOM - chunks / most_y * (_HEIGHT - _TOP - _BOTTOM)

    title = f"{plan.preset.name} on {plan.cluster.text}: predicted layouts, goal {plan.goal_text}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 32, title, 18),
        _text(_WIDTH / 2, _HEIGHT - 18, "latency of a chunk, median, seconds", 13, "middle"),
        _text(_LEFT - 60, _TOP - 12, "chunks an hour", 13),
    ]
    for tick in range(_TICKS + 1):
        along, up = most_x * tick / _TICKS, most_y * tick / _TICKS
        parts += [
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(up):.1f}" y2="{y(up):.1f}" stroke="#e7e5e4"/>',
            _text(_LEFT - 8, y(up) + 4, f"{up:.4g}", 12, "end"),
            _text(x(along), _HEIGHT - _BOTTOM + 20, f"{along:.3g}", 12, "middle"),
        ]
    for kind, row in rows:
        at, up = x(row.latency_p50), y(nodes * row.chunks_per_hour)
        parts.append(
            f'<circle cx="{at:.1f}" cy="{up:.1f}" r="{4 if kind == "layout" else 7}" fill="{_COLOURS[kind]}">'
            f"<title>{escape(row.name)}</title></circle>"
        )
        if kind != "layout":
            right = at > _WIDTH * 0.6
            label = row.name if kind == "winner" else "reference"
            shift = -14 if kind == "winner" else 22
            parts.append(_text(at, up + shift, label, 13, "end" if right else "start", _COLOURS[kind]))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, words: str, size: int, anchor: str = "start", colour: str = "#1c1917") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{escape(words)}</text>"
