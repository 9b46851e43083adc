"""The run's Prometheus metrics: every name, label value and bucket is here, on one registry of the control plane.

Invariants: a label's values are the ones that its ``Spec`` lists, never a session, a chunk or a prompt; memory is
bounded by the sessions under way. ``infra/prometheus/METRICS.md`` is ``markdown()``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gamecraft_core.base.errors import FramelaneError
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
    Spec("gamecraft_lane_busy_ratio", "gauge", "Busy share of a stage's lanes, since the start.", _STAGE),
    Spec("gamecraft_overlap_ratio", "gauge", "Share of recent decode-busy time with some denoise lane busy."),
    Spec("gamecraft_output_bytes_total", "counter", "Bytes stored."),
    Spec("gamecraft_outputs_committed_total", "counter", "Sessions committed."),
    Spec("gamecraft_failures_total", "counter", "Sessions that failed, by kind of error.", {"reason": REASONS}),
    Spec("gamecraft_lane_restarts_total", "counter", "Lanes lost or restarted.", _STAGE),
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
        self._histograms: dict[str, Histogram] = {}
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        for spec in METRICS:
            made: Histogram | Gauge | Counter
            names = (spec.name, spec.text, tuple(spec.labels))
            if spec.kind == "histogram":
                made = self._histograms[spec.name] = Histogram(*names, buckets=BUCKETS, registry=self.registry)
            elif spec.kind == "gauge":
                made = self._gauges[spec.name] = Gauge(*names, registry=self.registry)
            else:
                made = self._counters[spec.name] = Counter(*names, registry=self.registry)
            for values in spec.labels.values():  # one label at most
                for value in values:
                    made.labels(value)

    def histogram(self, name: str, *labels: str) -> Histogram:
        metric = self._histograms[f"gamecraft_{name}"]
        return metric.labels(*labels) if labels else metric

    def gauge(self, name: str, *labels: str) -> Gauge:
        metric = self._gauges[f"gamecraft_{name}"]
        return metric.labels(*labels) if labels else metric

    def counter(self, name: str, *labels: str) -> Counter:
        metric = self._counters[f"gamecraft_{name}"]
        return metric.labels(*labels) if labels else metric


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


class Metrics(Listener):
    """A listener that turns what happened into metrics. ``queue_depth`` asks the scheduler how many tasks wait.

    ``lanes`` counts the lanes of each stage; ``clock`` gives seconds on the scale of ``started``.
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
        self._lanes = lanes
        self._started = started
        self._clock = clock
        self._admitted: dict[str, float] = {}
        self._last_chunk: dict[str, float] = {}
        self._ready: dict[tuple[str, int], float] = {}
        self._use: dict[Stage, dict[str, _LaneUse]] = {stage: {} for stage in STAGES}
        self._recent: dict[str, deque[Interval]] = {
            stage: deque(maxlen=_OVERLAP_WINDOW) for stage in ("denoise", "decode")
        }
        self._video_seconds = 0.0
        for stage in STAGES:
            self._metrics.gauge("queue_depth", stage).set_function(partial(queue_depth, stage))
        self._metrics.gauge("realtime_factor").set_function(lambda: self._video_seconds / self._wall())

    def admitted(self, spec: SessionSpec, now: float) -> None:
        self._metrics.gauge("sessions", "active").inc()
        self._admitted[spec.session_id] = now

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        self._lane_used(receipt)
        self._metrics.counter("output_bytes_total").inc(receipt.facts.get("bytes", 0))
        stage, key = receipt.stage, (receipt.session_id, receipt.index)
        stored = "fragment_key" in receipt.facts
        if spec is None or (stage == "write" and not stored):
            return  # commits, failures and shards are no chunk's
        self._metrics.histogram("chunk_stage_seconds", stage).observe(receipt.seconds)
        self._metrics.histogram("chunk_stage_seconds", "queue").observe(max(0.0, receipt.started - ready_at))
        if stage == "denoise":
            self._ready[key] = ready_at
        elif stage == "decode":
            frames = receipt.facts.get("frames", 0)
            self._metrics.counter("frames_total").inc(frames)
            self._video_seconds += frames / spec.fps
        elif stored:
            self._chunk_stored(key, now)

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        self._metrics.gauge("sessions", "active").dec()
        self._metrics.gauge("sessions", "failed" if error else "committed").inc()
        if error:
            self._metrics.counter("failures_total", reason_of(error)).inc()
        else:
            self._metrics.counter("outputs_committed_total").inc()
        self._admitted.pop(spec.session_id, None)
        self._last_chunk.pop(spec.session_id, None)
        for index in range(spec.num_chunks if error else 0):
            self._ready.pop((spec.session_id, index), None)

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        self._metrics.counter("lane_restarts_total", lane.stage).inc()
        if lost := self._use[lane.stage].get(lane.name):
            lost.memory = 0.0

    def refused(self, rows: int) -> None:
        """Rows that validation turned away."""
        self._metrics.gauge("sessions", "failed").inc(rows)
        self._metrics.counter("failures_total", "BadInput").inc(rows)

    def _wall(self) -> float:
        return max(self._clock() - self._started, 1e-9)

    def _lane_used(self, receipt: Receipt) -> None:
        stage = receipt.stage
        used = self._use[stage]
        used.setdefault(receipt.lane, _LaneUse()).add(receipt)
        self._metrics.gauge("lane_memory_bytes", stage).set(max(use.memory for use in used.values()))
        busy = sum(use.busy for use in used.values())
        lanes = max(len(used), self._lanes.get(stage, 0))
        self._metrics.gauge("lane_busy_ratio", stage).set(busy / (lanes * self._wall()))
        if stage in self._recent:
            self._recent[stage].append((receipt.started, receipt.ended))
            ratio = overlap_ratio(self._recent["decode"], self._recent["denoise"])
            self._metrics.gauge("overlap_ratio").set(ratio or 0.0)

    def _chunk_stored(self, key: tuple[str, int], now: float) -> None:
        session_id, index = key
        if (ready := self._ready.pop(key, None)) is not None:
            self._metrics.histogram("chunk_e2e_seconds").observe(now - ready)
        if index == 0 and session_id in self._admitted:
            self._metrics.histogram("time_to_first_chunk_seconds").observe(now - self._admitted[session_id])
        if (last := self._last_chunk.get(session_id)) is not None:
            self._metrics.histogram("chunk_interarrival_seconds").observe(now - last)
        self._last_chunk[session_id] = now
