"""The run's Prometheus metrics: every name, label value and bucket is here, on one registry of the control plane.

Invariants: a label's values are the ones that its ``Spec`` lists, never a session, a chunk or a prompt; memory is
bounded by the sessions under way. ``infra/prometheus/METRICS.md`` is ``markdown()``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gamecraft_core.base.errors import Cancelled, FramelaneError
from gamecraft_core.base.messages import STAGES, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.overlap import Interval, overlap_ratio
from orchestrator.ports import Lane, Listener

#: Seconds. From a tiny model's step to ten minutes of a base model's chunk.
BUCKETS = (
    0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0,
    20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip

STATES = ("active", "committed", "failed")
#: Classes of ``base.errors`` that end a session; ``other`` is any that is none of these.
REASONS = ("BadInput", "Poisoned", "LaneLost", "StoreUnavailable", "other")

Kind = TypeVar("Kind", Histogram, Gauge, Counter)

#: How many of the latest decodes and denoises the overlap gauge looks at.
_OVERLAP_WINDOW = 256


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric as readers meet it; ``labels`` gives every value that each label can have."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_STAGE = {"stage": STAGES}

METRICS = (
    Spec(
        "gamecraft_chunk_stage_seconds",
        "histogram",
        "Time a chunk spends in a stage (text and encode once a session); queue: each wait for a lane.",
        {"stage": ("queue", *STAGES)},
    ),
    Spec("gamecraft_chunk_e2e_seconds", "histogram", "From a chunk's denoise being ready to its fragment stored."),
    Spec("gamecraft_time_to_first_chunk_seconds", "histogram", "From a session's admission to its first stored chunk."),
    Spec("gamecraft_chunk_interarrival_seconds", "histogram", "Between consecutive stored chunks of one session."),
    Spec("gamecraft_frames_total", "counter", "Pixel frames decoded."),
    Spec("gamecraft_realtime_factor", "gauge", "Video seconds made per wall second, since the start."),
    Spec("gamecraft_sessions", "gauge", "Sessions of this start by state.", {"state": STATES}),
    Spec("gamecraft_queue_depth", "gauge", "Ready tasks that no lane has taken.", _STAGE),
    Spec("gamecraft_lane_busy_ratio", "gauge", "Busy share of the time that a stage had lanes.", _STAGE),
    Spec("gamecraft_overlap_ratio", "gauge", "Share of recent decode-busy time with some denoise lane busy."),
    Spec("gamecraft_output_bytes_total", "counter", "Bytes stored."),
    Spec("gamecraft_outputs_committed_total", "counter", "Sessions committed."),
    Spec("gamecraft_failures_total", "counter", "Sessions that failed, by kind of error.", {"reason": REASONS}),
    Spec("gamecraft_lane_restarts_total", "counter", "Lanes lost or restarted.", _STAGE),
    Spec("gamecraft_lanes", "gauge", "Lanes that the run has, draining ones too, lost ones not.", _STAGE),
    Spec("gamecraft_lanes_missing", "gauge", "Lanes lost that nothing has replaced yet.", _STAGE),
    Spec("gamecraft_store_retries_total", "counter", "Orders that found the store absent and wait for it.", _STAGE),
    Spec(
        "gamecraft_lane_memory_bytes",
        "gauge",
        "Memory of a stage's largest lane: the GPU's where it uses one, else resident.",
        _STAGE,
    ),
)  # fmt: skip


def markdown() -> str:
    """The table of ``infra/prometheus/METRICS.md``."""
    buckets = ", ".join(f"{bucket:g}" for bucket in BUCKETS)
    lines = [
        "# Metrics",
        "",
        "One endpoint for a run, on port 9108 unless `--metrics-port` says otherwise (0 takes a free one); its URL is",
        "logged and stands in `run.json`. No label ever holds a session, a chunk or a prompt.",
        "",
        "| name | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for spec in METRICS:
        labels = "; ".join(f"`{label}`: {', '.join(values)}" for label, values in spec.labels.items())
        lines.append(f"| `{spec.name}` | {spec.kind} | {labels} | {spec.text} |")
    return "\n".join([*lines, "", f"Buckets of the histograms, in seconds: {buckets}.", ""])


def reason_of(error: FramelaneError) -> str:
    """The nearest class of ``error`` that is one of REASONS."""
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in REASONS), "other")


class _Instruments:
    """METRICS on a registry of their own. Every label value is there from the start, at zero."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._histograms: dict[tuple[str, ...], Histogram] = {}
        self._gauges: dict[tuple[str, ...], Gauge] = {}
        self._counters: dict[tuple[str, ...], Counter] = {}
        for spec in METRICS:
            names = (spec.name, spec.text, tuple(spec.labels))
            labels = [value for values in spec.labels.values() for value in values]  # one label at most
            if spec.kind == "histogram":
                _add(self._histograms, labels, Histogram(*names, buckets=BUCKETS, registry=self.registry), spec.name)
            elif spec.kind == "gauge":
                _add(self._gauges, labels, Gauge(*names, registry=self.registry), spec.name)
            else:
                _add(self._counters, labels, Counter(*names, registry=self.registry), spec.name)

    def histogram(self, name: str, *labels: str) -> Histogram:
        return self._histograms[name, *labels]

    def gauge(self, name: str, *labels: str) -> Gauge:
        return self._gauges[name, *labels]

    def counter(self, name: str, *labels: str) -> Counter:
        return self._counters[name, *labels]


def _add(known: dict[tuple[str, ...], Kind], labels: Sequence[str], metric: Kind, name: str) -> None:
    """Note the metric by its short name, or its series by that and the label: a look-up is paid at each use."""
    short = name.removeprefix("gamecraft_")
    if not labels:
        known[short,] = metric
    for label in labels:
        known[short, label] = metric.labels(label)


@dataclass(slots=True)
class _LaneUse:
    """What one lane did so far: seconds in which it held work, when that ended last, and its memory."""

    busy: float = 0.0
    until: float = 0.0
    memory: float = 0.0

    def add(self, receipt: Receipt) -> None:
        """Two orders may overlap in a lane (one decodes while one encodes its video): that counts once."""
        self.busy += max(0.0, receipt.ended - max(receipt.started, self.until))
        self.until = max(self.until, receipt.ended)
        self.memory = receipt.facts.get("memory_bytes", self.memory)


class _LaneCount:
    """How many lanes a stage has, and for how many seconds in all it had them."""

    __slots__ = ("_since", "_until_then", "count")

    def __init__(self, count: int, now: float) -> None:
        self.count = count
        self._since = now
        self._until_then = 0.0

    def changed(self, by: int, now: float) -> None:
        self._until_then, self._since = self.seconds(now), now
        self.count += by

    def seconds(self, now: float) -> float:
        return self._until_then + self.count * max(0.0, now - self._since)


class Metrics(Listener):
    """A listener that turns what happened into metrics. ``queue_depth`` asks the scheduler how many tasks wait.

    ``lanes`` counts the lanes of each stage at the start; ``clock`` gives seconds on the scale of ``started``.
    """

    def __init__(
        self,
        lanes: Mapping[Stage, int],
        queue_depth: Callable[[Stage], int],
        started: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = _Instruments()
        self.registry = self._metrics.registry
        self._lanes = {stage: _LaneCount(lanes.get(stage, 0), started) for stage in STAGES}
        self._started = started
        self._clock = clock
        self._missing: dict[str, Stage] = {}
        self._admitted: dict[str, float] = {}
        self._last_chunk: dict[str, float] = {}
        self._ready: dict[str, dict[int, float]] = {}
        self._use: dict[Stage, dict[str, _LaneUse]] = {stage: {} for stage in STAGES}
        self._recent: dict[str, deque[Interval]] = {
            stage: deque(maxlen=_OVERLAP_WINDOW) for stage in ("denoise", "decode")
        }
        self._video_seconds = 0.0
        for stage in STAGES:
            self._metrics.gauge("queue_depth", stage).set_function(partial(queue_depth, stage))
            self._metrics.gauge("lane_busy_ratio", stage).set_function(partial(self._busy_ratio, stage))
            self._metrics.gauge("lanes", stage).set_function(partial(self._there, stage))
            self._metrics.gauge("lane_memory_bytes", stage).set_function(partial(self._largest, stage))
        self._metrics.gauge("overlap_ratio").set_function(self._overlap)
        self._metrics.gauge("realtime_factor").set_function(lambda: self._video_seconds / self._wall())

    def admitted(self, spec: SessionSpec, now: float) -> None:
        self._metrics.gauge("sessions", "active").inc()
        self._admitted[spec.session_id] = now

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        self._lane_used(receipt)
        self._metrics.counter("output_bytes_total").inc(receipt.facts.get("bytes", 0))
        stage = receipt.stage
        stored = "stored" in receipt.facts
        if spec is None or (stage == "write" and not stored):
            return  # restored state, failures and shards are no chunk's
        self._metrics.histogram("chunk_stage_seconds", stage).observe(receipt.seconds)
        self._metrics.histogram("chunk_stage_seconds", "queue").observe(max(0.0, receipt.started - ready_at))
        if stage == "denoise":
            self._ready.setdefault(spec.session_id, {})[receipt.index] = ready_at
        elif stage == "decode":
            frames = receipt.facts.get("frames", 0)
            self._metrics.counter("frames_total").inc(frames)
            self._video_seconds += frames / spec.fps
        elif stored:
            self._chunk_stored(spec.session_id, receipt.index, now)

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        if self._admitted.pop(spec.session_id, None) is None:
            return  # it was called off before it came in
        self._metrics.gauge("sessions", "active").dec()
        self._last_chunk.pop(spec.session_id, None)
        self._ready.pop(spec.session_id, None)
        if isinstance(error, Cancelled):
            return
        self._metrics.gauge("sessions", "failed" if error else "committed").inc()
        if error:
            self._metrics.counter("failures_total", reason_of(error)).inc()
        else:
            self._metrics.counter("outputs_committed_total").inc()

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        self._metrics.counter("lane_restarts_total", lane.stage).inc()
        if lost := self._use[lane.stage].get(lane.name):
            lost.memory = 0.0
        self._metrics.gauge("lanes_missing", lane.stage).inc()
        self._missing[lane.name] = lane.stage

    def lane_back(self, lane: Lane, now: float) -> None:
        self._metrics.gauge("lanes_missing", lane.stage).dec()
        self._missing.pop(lane.name, None)

    def lane_joined(self, lane: Lane, now: float) -> None:
        self._lanes[lane.stage].changed(1, now)

    def lane_left(self, lane: Lane, now: float) -> None:
        self._lanes[lane.stage].changed(-1, now)
        if gone := self._use[lane.stage].get(lane.name):
            gone.memory = 0.0
        if lane.name in self._missing:  # lost while it drained: nobody misses it
            self.lane_back(lane, now)

    def store_away(self, stage: Stage, error: FramelaneError, pause: float, now: float) -> None:
        self._metrics.counter("store_retries_total", stage).inc()

    def refused(self, rows: int) -> None:
        """Rows that validation turned away."""
        self._metrics.gauge("sessions", "failed").inc(rows)
        self._metrics.counter("failures_total", "BadInput").inc(rows)

    def _wall(self) -> float:
        return max(self._clock() - self._started, 1e-9)

    def _lane_used(self, receipt: Receipt) -> None:
        self._use[receipt.stage].setdefault(receipt.lane, _LaneUse()).add(receipt)
        if receipt.stage in self._recent:
            self._recent[receipt.stage].append((receipt.started, receipt.ended))

    def _busy_ratio(self, stage: Stage) -> float:
        there = self._lanes[stage].seconds(self._clock())
        return sum(use.busy for use in list(self._use[stage].values())) / max(there, 1e-9)

    def _there(self, stage: Stage) -> float:
        return self._lanes[stage].count - sum(missing == stage for missing in list(self._missing.values()))

    def _largest(self, stage: Stage) -> float:
        return max((use.memory for use in list(self._use[stage].values())), default=0.0)

    def _overlap(self) -> float:
        return overlap_ratio(list(self._recent["decode"]), list(self._recent["denoise"])) or 0.0

    def _chunk_stored(self, session_id: str, index: int, now: float) -> None:
        if (ready := self._ready.get(session_id, {}).pop(index, None)) is not None:
            self._metrics.histogram("chunk_e2e_seconds").observe(now - ready)
        if index == 0 and session_id in self._admitted:
            self._metrics.histogram("time_to_first_chunk_seconds").observe(now - self._admitted[session_id])
        if (last := self._last_chunk.get(session_id)) is not None:
            self._metrics.histogram("chunk_interarrival_seconds").observe(now - last)
        self._last_chunk[session_id] = now
