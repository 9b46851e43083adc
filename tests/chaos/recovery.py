"""How long things were away, from the times at which drivers said so and those at which they were hurt."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.chaos.inject import Strike
from tests.chaos.supervisor import Said

_LOST = re.compile(r"lane lost: .*\blane=([^]\s]+)")
_BACK = re.compile(r"lane is back .*\blane=([^]\s]+)")
_SERVING = "metrics at"
_STAGES = {
    "kill_rank": "denoise",
    "stop_rank": "denoise",
    "kill_decoder": "decode",
    "kill_writer": "write",
    "kill_text": "text",
    "kill_encoder": "encode",
}
#: A loss that is noticed later than this has another cause, or nobody needed the lane before.
_NOTICED_S = 15.0


def recoveries(said: Sequence[Said], struck: Iterable[Strike], *, detached: bool) -> Iterator[tuple[str, float]]:
    """(what, seconds): a process killed until its lane served again, a driver killed until the next one served."""
    downs = list(_downs(said))
    for strike in struck:
        kind = strike.fault.kind
        if kind == "kill_driver":
            served = next((each.at for each in said if each.at > strike.at and _SERVING in each.line), None)
            if served is not None:
                yield f"kill_driver, {'detached lanes' if detached else 'own lanes'}", served - strike.at
        elif stage := _STAGES.get(kind):
            for down in downs:
                lane, lost, back = down
                if lane.startswith(stage) and strike.at <= lost <= strike.at + _NOTICED_S:
                    yield kind, back - strike.at
                    downs.remove(down)
                    break


def summary(measured: Iterable[tuple[str, float]]) -> dict[str, dict[str, Any]]:
    """By what was measured: how often, median and most seconds."""
    by_what: dict[str, list[float]] = {}
    for what, seconds in measured:
        by_what.setdefault(what, []).append(seconds)
    return {
        what: {"n": len(times), "median_s": round(statistics.median(times), 2), "most_s": round(max(times), 2)}
        for what, times in sorted(by_what.items())
    }


def _downs(said: Iterable[Said]) -> Iterator[tuple[str, float, float]]:
    """(lane, lost, back) of every lane that came back to the driver that lost it."""
    lost: dict[str, float] = {}
    for each in said:
        if found := _LOST.search(each.line):
            lost.setdefault(found[1], each.at)
        elif (found := _BACK.search(each.line)) and found[1] in lost:
            yield found[1], lost.pop(found[1]), each.at
        elif _SERVING in each.line:
            lost.clear()
