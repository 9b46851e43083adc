"""The picture: one panel a round, a line for every lane-like thing, bars where its processes lived, faults on top."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from tests.chaos.census import Life
from tests.chaos.inject import Strike
from tests.chaos.play import Round

_LEFT, _RIGHT, _TOP = 110, 30, 70
_LINE, _BAR, _GAP = 18, 10, 46
_WIDTH = 1500
_TICK_S = 10
_ROLES = ("driver", "text", "encoder", "rank", "decoder", "writer")
_COLOURS = {
    "driver": "#4a4e69",
    "text": "#8a6d3b",
    "encoder": "#b08968",
    "rank": "#2a6f97",
    "decoder": "#4f8a5b",
    "writer": "#7b5ea7",
    "nodes": "#6c757d",
    "s3": "#bc4749",
}
_MARKS = {"kill": "✕", "stop": "‖", "point": "◆", "remove": "⊘", "s3": "▾"}


def picture(rounds: Sequence[Round], struck: Sequence[Strike]) -> str:
    """An SVG of all rounds, one below the other, on one scale of seconds."""
    longest = max((made.ended - made.began for made in rounds), default=1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / max(longest, 1.0)
    body: list[str] = []
    y: float = _TOP
    for made in rounds:
        panel = _Panel(made, [strike for strike in struck if made.began <= strike.at <= made.ended], scale, y)
        body += panel.draw()
        y += panel.height + _GAP
    legend = "✕ killed   ‖ stopped   ◆ died at a named point   ⊘ node removed   ▾ store fault (bar: how long)"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}">',
            "<style>text{font:11px sans-serif;fill:#222} .t{font-size:13px;font-weight:bold} .m{font-size:13px}"
            " .s{fill:#888;font-size:10px}</style>",
            f'<rect width="{_WIDTH}" height="{y}" fill="white"/>',
            f'<text x="{_LEFT}" y="20" class="t">{len(struck)} faults in {len(rounds)} rounds</text>',
            f'<text x="{_LEFT}" y="38">{legend}</text>',
            *body,
            "</svg>\n",
        ]
    )


class _Panel:
    """One round: its lines from top to bottom, and what is on them."""

    def __init__(self, made: Round, struck: Sequence[Strike], scale: float, y: float) -> None:
        self._made = made
        self._struck = struck
        self._scale = scale
        self._y = y
        self._lines: list[tuple[str, list[Life]]] = []
        for role in _ROLES:
            for lives in _stacked(life for life in made.lives if life.role == role):
                self._lines.append((role, lives))
        self._lines += [("nodes", []), ("s3", [])]

    @property
    def height(self) -> float:
        return _LINE * len(self._lines)

    def draw(self) -> list[str]:
        made = self._made
        title = f"round {made.number}: {len(self._struck)} faults, {len(made.starts)} starts of the driver, "
        title += f"{'detached' if made.detached else 'own'} lanes, {made.ended - made.began:.0f} s: "
        title += "whole" if not made.problems else f"{len(made.problems)} problems"
        drawn = [f'<text x="{_LEFT}" y="{self._y - 6:.0f}" class="t">{escape(title)}</text>', *self._ticks()]
        for number, (role, lives) in enumerate(self._lines):
            y = self._middle(number)
            drawn.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{role}</text>')
            drawn += [self._bar(life.first, life.last, y, _COLOURS[role], 0.45, f"{role} {life.pid}") for life in lives]
        return drawn + [drawn_mark for strike in self._struck for drawn_mark in self._mark(strike)]

    def _ticks(self) -> Iterator[str]:
        for second in range(0, int(self._made.ended - self._made.began) + 1, _TICK_S):
            x = _LEFT + second * self._scale
            yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{self._y}" y2="{self._y + self.height}" stroke="#eee"/>'
            yield f'<text x="{x:.1f}" y="{self._y + self.height + 12}" class="s" text-anchor="middle">{second} s</text>'

    def _mark(self, strike: Strike) -> Iterator[str]:
        kind = strike.fault.kind
        mark = next(mark for word, mark in _MARKS.items() if kind.startswith(word))
        number = self._line_of(strike)
        role, y = self._lines[number][0], self._middle(number)
        what = f"{strike.fault.title}: {strike.victim} at {strike.at - self._made.began:.1f} s"
        if kind.startswith(("s3", "remove")):
            yield self._bar(strike.at, strike.until, y, _COLOURS[role], 0.8, what)
        x = self._x(strike.at)
        yield (
            f'<text x="{x:.1f}" y="{y + 4:.1f}" class="m" text-anchor="middle" fill="#c1121f">{mark}'
            f"<title>{escape(what)}</title></text>"
        )

    def _line_of(self, strike: Strike) -> int:
        """The line on which the victim lived, or that of the cluster's or the store's faults."""
        pid = strike.hit.get("pid")
        for number, (_, lives) in enumerate(self._lines):
            if any(life.pid == pid for life in lives):
                return number
        return len(self._lines) - (1 if strike.fault.kind.startswith("s3") else 2)

    def _bar(self, begin: float, end: float, y: float, colour: str, opacity: float, what: str) -> str:
        x, width = self._x(begin), max(self._x(end) - self._x(begin), 1.5)
        return (
            f'<rect x="{x:.1f}" y="{y - _BAR / 2:.1f}" width="{width:.1f}" height="{_BAR}" fill="{colour}" '
            f'opacity="{opacity}" rx="2"><title>{escape(what)}</title></rect>'
        )

    def _x(self, at: float) -> float:
        return _LEFT + (min(max(at, self._made.began), self._made.ended) - self._made.began) * self._scale

    def _middle(self, number: int) -> float:
        return self._y + _LINE * (number + 0.5)


def _stacked(lives: Iterable[Life]) -> list[list[Life]]:
    """As few lines as there were processes at once: a successor takes the line of who died before it."""
    lines: list[list[Life]] = []
    for life in sorted(lives, key=lambda life: life.first):
        free = [line for line in lines if line[-1].last < life.first]
        if free:
            max(free, key=lambda line: -line[-1].last).append(life)
        else:
            lines.append([life])
    return lines
