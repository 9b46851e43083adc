"""The timeline of a run: one track per lane, in the trace format that Perfetto opens.

Invariants: the events kept are the latest ones, a bounded number, and the file says how many came before them; the
overlap ratio is that of the whole run. Shown to a tenant it names nobody else's sessions, only that lanes were busy.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any, NamedTuple

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import STAGES, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.overlap import Overlap
from orchestrator.ports import Lane, Listener

#: Receipts kept. Each is one slice of a track, a decode's two.
MAX_EVENTS = 50_000


class _Kept(NamedTuple):
    """What the timeline shows of a receipt. ``decoded``: where it gives way to the encoding of its video."""

    tenant: str | None
    stage: Stage
    lane: str
    session_id: str
    chunk: int
    started: float
    decoded: float
    ended: float


class Timeline(Listener):
    """A listener that keeps the latest receipts, and of all of them how well decode hides behind denoise."""

    def __init__(self, max_events: int = MAX_EVENTS) -> None:
        self._receipts: deque[_Kept] = deque(maxlen=max_events)
        self._moved: deque[tuple[str, str, float]] = deque(maxlen=1000)
        self._overlap = Overlap()
        self._heard = 0

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        decoded = receipt.facts.get("decoded", receipt.ended)
        self._receipts.append(
            _Kept(
                spec.tenant if spec is not None else None,
                receipt.stage,
                receipt.lane,
                receipt.session_id,
                receipt.index,
                receipt.started,
                decoded,
                receipt.ended,
            )
        )
        self._heard += 1
        if receipt.stage == "decode":
            self._overlap.decoded(receipt.started, receipt.ended)
        elif receipt.stage == "denoise":
            self._overlap.denoised(receipt.started, receipt.ended)

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        self._moved.append((f"lost {lane.name}", f": {error}", now))

    def lane_back(self, lane: Lane, now: float) -> None:
        self._moved.append((f"{lane.name} is back", "", now))

    def lane_joined(self, lane: Lane, now: float) -> None:
        self._moved.append((f"{lane.name} joined", "", now))

    def lane_left(self, lane: Lane, now: float) -> None:
        self._moved.append((f"{lane.name} left", "", now))

    def overlap_ratio(self) -> float | None:
        """Of the whole run, whatever is kept."""
        return self._overlap.ratio()

    def to_json(self, tenant: str | None = None, since: float = 0.0) -> bytes:
        """Trace events in microseconds since the first one. Tracks are sorted by stage, then lane.

        For ``tenant``, of what ended after ``since`` (Unix seconds). May be called on another thread.
        """
        receipts = [each for each in list(self._receipts) if each.ended >= since]
        origin = min((r.started for r in receipts), default=since)
        known = [tenant is None or each.tenant == tenant for each in receipts]
        shown = zip(receipts, known, strict=True)
        tracks = _tracks([part for receipt, named in shown for part in _slices(receipt, origin, named=named)])
        events: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "framelane"}}]
        for number, (name, members) in enumerate(tracks, start=1):
            events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": name}})
            events += [{**part.event, "tid": number} for part in members]
        for what, why, when in list(self._moved):
            if when >= since:  # why a lane was lost may name whose order it had
                name = what if tenant is not None else what + why
                at = round((when - origin) * 1e6)
                events.append({"ph": "i", "s": "p", "pid": 1, "tid": 0, "ts": at, "name": name})
        note = {"receipts": self._heard, "receipts_left_out": self._heard - len(receipts)}
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": note}).encode()


class _Slice(NamedTuple):
    """One busy span of a lane, in microseconds. ``order`` sorts tracks."""

    order: tuple[int, str]
    start: int
    end: int
    event: dict[str, Any]


def _tracks(slices: list[_Slice]) -> list[tuple[str, list[_Slice]]]:
    """Slices by track: a lane with several orders inside at once gets as many tracks, so that none overlap."""
    lanes: dict[tuple[int, str], list[list[_Slice]]] = {}
    for part in sorted(slices, key=lambda part: part.start):
        tracks = lanes.setdefault(part.order, [])
        free = next((track for track in tracks if track[-1].end <= part.start), None)
        if free is None:
            tracks.append([part])
        else:
            free.append(part)
    return [
        (name if number == 1 else f"{name} ({number})", track)
        for (_, name), tracks in sorted(lanes.items())
        for number, track in enumerate(tracks, start=1)
    ]


def _slices(receipt: _Kept, origin: float, *, named: bool) -> list[_Slice]:
    """One slice a receipt; a decode's video encoding runs beside the next decode, so it is a slice of its own."""
    parts: list[tuple[str, str, float, float]] = [(receipt.stage, receipt.lane, receipt.started, receipt.decoded)]
    if receipt.decoded < receipt.ended:
        parts.append(("encode video", f"{receipt.lane} video encoding", receipt.decoded, receipt.ended))
    made = []
    for name, lane, started, ended in parts:
        start, end = round((started - origin) * 1e6), round((ended - origin) * 1e6)
        event = {
            "ph": "X",
            "pid": 1,
            "cat": name,
            "name": f"{name} {receipt.session_id} #{receipt.chunk}" if named else f"{name} of another tenant",
            "ts": start,
            "dur": end - start,
            "args": {"session": receipt.session_id, "chunk": receipt.chunk} if named else {},
        }
        made.append(_Slice((STAGES.index(receipt.stage), lane), start, end, event))
    return made
