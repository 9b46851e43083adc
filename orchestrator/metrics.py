"""What happens in a run, turned into metrics: a listener for what it hears, functions for what the endpoint asks.

Invariants: memory is bounded by the sessions under way; whatever the endpoint's thread reads changes in one step.
``orchestrator.instruments`` has every name.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, runtime_checkable

from gamecraft_core.base.errors import Cancelled, FramelaneError
from gamecraft_core.base.messages import STAGES, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.audience import Viewer, played_by
from orchestrator.engine import Engine
from orchestrator.instruments import METRICS as METRICS
from orchestrator.instruments import REASONS, Instruments, Refused
from orchestrator.instruments import markdown as markdown
from orchestrator.overlap import Interval, overlap_ratio
from orchestrator.ports import Lane, Listener, Ref
from orchestrator.scheduler import Scheduler

#: How many of the latest decodes and denoises the overlap gauge looks at.
_OVERLAP_WINDOW = 256


def reason_of(error: FramelaneError) -> str:
    """The nearest class of ``error`` that is one of REASONS."""
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in REASONS), "other")


@runtime_checkable
class OnGpus(Protocol):
    """A lane that reserves GPUs, or shares of them."""

    @property
    def gpus(self) -> float: ...


class _LaneUse:
    """What one lane did so far: seconds in which it held work, when that ended last, and its memory of what it could.

    Plain attributes: one is changed for every order.
    """

    __slots__ = ("busy", "could", "memory", "until")

    def __init__(self) -> None:
        self.busy = self.until = self.memory = self.could = 0.0

    def add(self, receipt: Receipt) -> None:
        """Two orders may overlap in a lane (one decodes while one encodes its video): that counts once."""
        self.busy += max(0.0, receipt.ended - max(receipt.started, self.until))
        self.until = max(self.until, receipt.ended)
        facts = receipt.facts
        self.memory = facts.get("memory_bytes", self.memory)
        self.could = facts.get("memory_limit_bytes", self.could)


class _Present:
    """How many there are of something, and for how many seconds in all they were there."""

    __slots__ = ("_since", "_until_then", "count")

    def __init__(self, now: float) -> None:
        self.count = 0.0
        self._since = now
        self._until_then = 0.0

    def changed(self, by: float, now: float) -> None:
        self._until_then, self._since = self.seconds(now), now
        self.count += by

    def seconds(self, now: float) -> float:
        return self._until_then + self.count * max(0.0, now - self._since)


class _UnderWay:
    """A session: when it came, its chunks that can be taken for stored, when the last was, and those being made."""

    __slots__ = ("came", "chunks", "last", "ready", "viewer")

    def __init__(self, now: float, viewer: Viewer | None) -> None:
        self.came = now
        self.chunks = 0
        self.last: float | None = None
        self.ready: dict[int, float] = {}
        self.viewer = viewer


class Metrics(Listener):
    """A listener that turns what happened into metrics, and asks ``scheduler`` how things are.

    ``lanes`` are those at the start; ``clock`` gives seconds on the scale of ``started``.
    """

    def __init__(
        self, lanes: Iterable[Lane], scheduler: Scheduler, started: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._metrics = Instruments()
        self.registry = self._metrics.registry
        self._scheduler = scheduler
        self._started = self._idle_at = started
        self._clock = clock
        self._lanes = {stage: _Present(started) for stage in STAGES}
        self._gpus = {stage: _Present(started) for stage in STAGES}
        self._missing: dict[str, Stage] = {}
        self._sessions: dict[str, _UnderWay] = {}
        self._use: dict[Stage, dict[str, _LaneUse]] = {stage: {} for stage in STAGES}
        self._recent: dict[str, deque[Interval]] = {
            stage: deque(maxlen=_OVERLAP_WINDOW) for stage in ("denoise", "decode")
        }
        self._frames = self._bytes = self._chunks = self._admitted = 0
        self._stalls = self._rows_settled = self._chunks_settled = 0
        self._last_chunk_at = self._video_seconds = self._live_seconds = self._stall_seconds = 0.0
        for lane in lanes:
            self.lane_joined(lane, started)
        self._answer()

    def attach(self, engine: Engine) -> None:
        """Ask ``engine``, too."""
        ask = self._metrics.ask
        ask(lambda: engine.waiting, "bound_usage", "waiting_sessions")
        ask(lambda: engine.limits.max_queued, "bound_limit", "waiting_sessions")
        ask(lambda: engine.stopped_at or 0.0, "drain_started_timestamp_seconds")
        ask(lambda: engine.limits.grace_seconds, "drain_grace_seconds")

    def job(self, rows: int, chunks: int, before: Callable[[], tuple[int, int]]) -> None:
        """A job's size; ``before`` says how many of its rows and chunks had settled, or were refused, before."""
        ask = self._metrics.ask
        ask(lambda: rows, "job_rows")
        ask(lambda: chunks, "job_chunks")
        ask(lambda: min(rows, before()[0] + self._rows_settled), "job_rows_settled")
        ask(lambda: min(chunks, before()[1] + self._chunks_settled), "job_chunks_settled")

    def admitted(self, spec: SessionSpec, now: float) -> None:
        self._metrics.gauge("sessions", "active").inc()
        self._admitted += 1
        viewer = Viewer(spec.num_chunks, now) if spec.priority == "interactive" else None
        self._sessions[spec.session_id] = _UnderWay(now, viewer)

    def asked(self, spec: SessionSpec, chunks: int, now: float) -> None:
        if (session := self._sessions.get(spec.session_id)) and session.viewer:
            session.viewer.asks(chunks, now)

    def decoded(self, spec: SessionSpec, index: int, fragment: Ref, now: float) -> None:
        session = self._sessions.get(spec.session_id)
        seconds = played_by(spec, index)
        if session is None or session.viewer is None or not seconds:
            return
        if shown := session.viewer.sees(index, seconds, now):
            self._metrics.histogram("action_to_frame_seconds").observe(shown.waited)
            self._live_seconds += seconds
            self._stalls += shown.stalled > 0
            self._stall_seconds += shown.stalled

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        self._lane_used(receipt)
        stage, facts = receipt.stage, receipt.facts
        if stage == "write":
            self._bytes += facts.get("bytes", 0)
            self._metrics.histogram("store_seconds", _operation(spec, receipt)).observe(receipt.seconds)
        session = self._sessions.get(spec.session_id) if spec is not None else None
        if spec is None or (stage == "write" and not _stores_chunk(spec, receipt)):
            if session is not None and "chunks" in facts:
                self._has_chunks(session, len(facts["chunks"]))
            return  # restored state, failures, shards and records of what is stored already are no chunk's
        self._metrics.histogram("chunk_stage_seconds", stage).observe(receipt.seconds)
        self._metrics.histogram("chunk_stage_seconds", "queue").observe(max(0.0, receipt.started - ready_at))
        if stage == "denoise":
            if session is not None:
                session.ready[receipt.index] = ready_at
        elif stage == "decode":
            frames = facts.get("frames", 0)
            self._frames += frames
            self._video_seconds += frames / spec.fps
        elif stage == "write" and session is not None:
            self._chunk_stored(session, receipt.index, now)

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        session = self._sessions.pop(spec.session_id, None)
        if session is None:
            return  # it was called off before it came in
        self._metrics.gauge("sessions", "active").dec()
        if isinstance(error, Cancelled):
            return
        self._rows_settled += 1
        self._has_chunks(session, spec.num_chunks)
        self._metrics.gauge("sessions", "failed" if error else "committed").inc()
        if error:
            self._metrics.counter("failures_total", reason_of(error)).inc()
        else:
            self._metrics.counter("outputs_committed_total").inc()

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        self._metrics.counter("lane_restarts_total", lane.stage).inc()
        self._holds_nothing(lane)
        self._missing[lane.name] = lane.stage

    def lane_back(self, lane: Lane, now: float) -> None:
        self._missing.pop(lane.name, None)

    def lane_joined(self, lane: Lane, now: float) -> None:
        self._there(lane, 1, now)

    def lane_leaving(self, lane: Lane, now: float) -> None:
        self._metrics.counter("node_notices_total", lane.stage).inc()

    def lane_left(self, lane: Lane, now: float) -> None:
        self._there(lane, -1, now)
        self._holds_nothing(lane)
        self._missing.pop(lane.name, None)  # lost while it drained: nobody misses it

    def store_away(self, stage: Stage, error: FramelaneError, pause: float, now: float) -> None:
        self._metrics.counter("store_retries_total", stage).inc()

    def refused(self, rows: int) -> None:
        """Rows that validation turned away."""
        self._metrics.gauge("sessions", "failed").inc(rows)
        self._metrics.counter("failures_total", "BadInput").inc(rows)

    def turned_away(self, reason: Refused) -> None:
        """The service refused somebody for want of room."""
        self._metrics.counter("refusals_total", reason).inc()

    def _answer(self) -> None:
        """Say who answers what the endpoint asks."""
        ask, clock, scheduler = self._metrics.ask, self._clock, self._scheduler
        ask(lambda: self._frames, "frames_total")
        ask(lambda: self._bytes, "output_bytes_total")
        ask(lambda: self._chunks, "chunks_stored_total")
        ask(lambda: self._last_chunk_at, "last_chunk_timestamp_seconds")
        ask(self._stalled, "stalled_seconds")
        ask(lambda: self._video_seconds, "video_seconds_total")
        ask(lambda: self._video_seconds / max(clock() - self._started, 1e-9), "realtime_factor")
        ask(lambda: self._live_seconds, "live_video_seconds_total")
        ask(lambda: self._stalls, "stalls_total")
        ask(lambda: self._stall_seconds, "stall_seconds_total")
        ask(lambda: scheduler.census.interactive, "live_sessions")
        ask(lambda: self._admitted, "sessions_admitted_total")
        ask(self._overlap, "overlap_ratio")
        ask(lambda: scheduler.parked, "orders_parked")
        for bound, (usage, limit) in scheduler.bounds.items():
            ask(usage, "bound_usage", bound)
            ask(partial(float, limit), "bound_limit", bound)
        for stage in STAGES:
            lanes, gpus = self._lanes[stage], self._gpus[stage]
            ask(partial(scheduler.waiting, stage), "queue_depth", stage)
            ask(partial(scheduler.in_flight, stage), "orders_in_flight", stage)
            ask(partial(scheduler.leaving, stage), "lanes_draining", stage)
            ask(partial(self._busy, stage), "lane_busy_seconds_total", stage)
            ask(partial(self._busy_ratio, stage), "lane_busy_ratio", stage)
            ask(lambda lanes=lanes: lanes.seconds(clock()), "lane_seconds_total", stage)  # type: ignore[misc]
            ask(lambda gpus=gpus: gpus.seconds(clock()), "gpu_seconds_total", stage)  # type: ignore[misc]
            ask(partial(self._missing_of, stage), "lanes_missing", stage)
            ask(lambda s=stage: self._lanes[s].count - self._missing_of(s), "lanes", stage)  # type: ignore[misc]
            ask(lambda s=stage: self._largest(s).memory, "lane_memory_bytes", stage)  # type: ignore[misc]
            ask(lambda s=stage: self._largest(s).could, "lane_memory_limit_bytes", stage)  # type: ignore[misc]

    def _there(self, lane: Lane, by: int, now: float) -> None:
        self._lanes[lane.stage].changed(by, now)
        if isinstance(lane, OnGpus):
            self._gpus[lane.stage].changed(by * lane.gpus, now)

    def _holds_nothing(self, lane: Lane) -> None:
        if use := self._use[lane.stage].get(lane.name):
            use.memory = use.could = 0.0

    def _lane_used(self, receipt: Receipt) -> None:
        used = self._use[receipt.stage]
        use = used.get(receipt.lane)
        if use is None:
            use = used[receipt.lane] = _LaneUse()
        use.add(receipt)
        if receipt.stage in self._recent:
            self._recent[receipt.stage].append((receipt.started, receipt.ended))

    def _busy(self, stage: Stage) -> float:
        return sum(use.busy for use in list(self._use[stage].values()))

    def _busy_ratio(self, stage: Stage) -> float:
        return self._busy(stage) / max(self._lanes[stage].seconds(self._clock()), 1e-9)

    def _missing_of(self, stage: Stage) -> int:
        return sum(missing == stage for missing in list(self._missing.values()))

    def _largest(self, stage: Stage) -> _LaneUse:
        return max(list(self._use[stage].values()), key=lambda use: use.memory, default=_LaneUse())

    def _overlap(self) -> float:
        return overlap_ratio(list(self._recent["decode"]), list(self._recent["denoise"])) or 0.0

    def _stalled(self) -> float:
        """Who looks now and then may miss that there was no work for a moment; then a chunk had been stored before."""
        now, scheduler = self._clock(), self._scheduler
        if not scheduler.parked and not any(scheduler.waiting(each) or scheduler.in_flight(each) for each in STAGES):
            self._idle_at = now
        return max(0.0, now - max(self._idle_at, self._last_chunk_at))

    def _chunk_stored(self, session: _UnderWay, index: int, now: float) -> None:
        self._chunks += 1
        self._last_chunk_at = now
        if (ready := session.ready.pop(index, None)) is not None:
            self._metrics.histogram("chunk_e2e_seconds").observe(now - ready)
        if index == 0:
            self._metrics.histogram("time_to_first_chunk_seconds").observe(now - session.came)
        if session.last is not None:
            self._metrics.histogram("chunk_interarrival_seconds").observe(now - session.last)
        session.last = now
        self._has_chunks(session, session.chunks + 1)

    def _has_chunks(self, session: _UnderWay, chunks: int) -> None:
        """After a session went back to what is durable of it they are fewer."""
        self._chunks_settled += chunks - session.chunks
        session.chunks = chunks


def _stores_chunk(spec: SessionSpec, receipt: Receipt) -> bool:
    """A commit stores the last chunk, too, unless nobody knew that it would be the last."""
    return "stored" in receipt.facts and not (spec.open and "committed" in receipt.facts)


def _operation(spec: SessionSpec | None, receipt: Receipt) -> str:
    """What a write lane did, by what it says of it."""
    facts = receipt.facts
    if "record" in facts:
        return "chunk"
    if "committed" in facts:
        return "commit"
    if "chunks" in facts:
        return "restore"
    return "failure" if spec is not None else "publish"
