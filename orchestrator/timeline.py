"""The timeline of a run: one track per lane, in the trace format that Perfetto opens. Bounded to the latest events."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import STAGES, Receipt
from gamecraft_core.base.spec import SessionSpec
from orchestrator.overlap import overlap_ratio
from orchestrator.ports import Lane

MAX_EVENTS = 100_000


class Timeline:
    """A listener that keeps the latest receipts."""

    def __init__(self, max_events: int = MAX_EVENTS) -> None:
        self._receipts: deque[Receipt] = deque(maxlen=max_events)
        self._lost: deque[tuple[str, str, float]] = deque(maxlen=1000)

    def admitted(self, spec: SessionSpec, now: float) -> None:
        pass

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        self._receipts.append(receipt)

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        pass

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        self._lost.append((lane.name, str(error), now))

    def overlap_ratio(self) -> float | None:
        """Over the events that are kept."""
        return overlap_ratio(
            [(r.started, r.ended) for r in self._receipts if r.stage == "decode"],
            [(r.started, r.ended) for r in self._receipts if r.stage == "denoise"],
        )

    def to_json(self) -> bytes:
        """Trace events in microseconds since the first one. Tracks are sorted by stage, then lane."""
        receipts = list(self._receipts)
        lanes = sorted({(STAGES.index(r.stage), r.lane) for r in receipts})
        tracks = {lane: 2 * number + 1 for number, (_, lane) in enumerate(lanes)}
        origin = min((r.started for r in receipts), default=0.0)
        events: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "framelane"}}]
        for lane, track in tracks.items():
            events.append(_track_name(track, lane))
            if any(r.lane == lane and "decoded" in r.facts for r in receipts):
                events.append(_track_name(track + 1, f"{lane} video encoding"))
        for receipt in receipts:
            events += _slices(receipt, tracks[receipt.lane], origin)
        for lane, reason, when in self._lost:
            at = round((when - origin) * 1e6)
            events.append(
                {"ph": "i", "s": "p", "pid": 1, "tid": tracks.get(lane, 0), "ts": at, "name": f"lost: {reason}"}
            )
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode()


def _track_name(track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": 1, "tid": track, "name": "thread_name", "args": {"name": name}}


def _slices(receipt: Receipt, track: int, origin: float) -> list[dict[str, Any]]:
    """One slice a receipt; a decode's video encoding runs beside the next decode, so it has its own track."""
    decoded = receipt.facts.get("decoded", receipt.ended)
    parts: list[tuple[str, int, float, float]] = [(receipt.stage, track, receipt.started, decoded)]
    if decoded < receipt.ended:
        parts.append(("encode video", track + 1, decoded, receipt.ended))
    arguments = {"session": receipt.session_id, "chunk": receipt.index}
    return [
        {
            "ph": "X",
            "pid": 1,
            "tid": tid,
            "cat": name,
            "name": f"{name} {receipt.session_id} #{receipt.index}",
            "ts": round((started - origin) * 1e6),
            "dur": round((ended - started) * 1e6),
            "args": arguments,
        }
        for name, tid, started, ended in parts
    ]
