"""The run's Prometheus metrics: every name and bucket is here, and one registry that the control plane alone feeds.

Labels have few values (stage, state, reason); never a session, a chunk or a prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import STAGES, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.overlap import Interval, overlap_ratio
from orchestrator.ports import Lane

#: Seconds. From a tiny model's step to ten minutes of a base model's chunk.
BUCKETS = (
    0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0,
    20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip

#: How many of the latest decodes and denoises the overlap gauge looks at.
_OVERLAP_WINDOW = 256


class Metrics:
    """A listener that turns what happened into metrics. ``queue_depth`` asks the scheduler how many tasks wait."""

    def __init__(self, lanes: dict[Stage, int], queue_depth: Callable[[Stage], int], started: float) -> None:
        self.registry = registry = CollectorRegistry()
        self._lanes = lanes
        self._started = started
        self._admitted: dict[str, float] = {}
        self._last_chunk: dict[str, float] = {}
        self._busy: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
        self._recent: dict[str, deque[Interval]] = {
            stage: deque(maxlen=_OVERLAP_WINDOW) for stage in ("denoise", "decode")
        }
        self._video_seconds = 0.0

        def histogram(name: str, text: str, labels: tuple[str, ...] = ()) -> Histogram:
            return Histogram(name, text, labels, buckets=BUCKETS, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.stage_seconds = histogram(
            "gamecraft_chunk_stage_seconds", "Time of one chunk in a stage; queue: waiting for lanes.", ("stage",)
        )
        self.e2e = histogram(
            "gamecraft_chunk_e2e_seconds", "From a chunk's denoise being ready to its fragment stored."
        )
        self.first = histogram("gamecraft_time_to_first_chunk_seconds", "From admission to the first stored chunk.")
        self.interarrival = histogram("gamecraft_chunk_interarrival_seconds", "Between stored chunks of one session.")
        self.frames = counter("gamecraft_frames_total", "Pixel frames decoded.")
        self.realtime = gauge("gamecraft_realtime_factor", "Video seconds made per wall second, since the start.")
        self.sessions = gauge("gamecraft_sessions", "Sessions by state.", ("state",))
        self.queue = gauge("gamecraft_queue_depth", "Ready tasks that no lane has taken.", ("stage",))
        self.lane_busy = gauge(
            "gamecraft_lane_busy_ratio", "Busy share of a stage's lanes, since the start.", ("stage",)
        )
        self.overlap = gauge("gamecraft_overlap_ratio", "Share of recent decode time with some denoise lane busy.")
        self.bytes = counter("gamecraft_output_bytes_total", "Bytes stored.")
        self.commits = counter("gamecraft_outputs_committed_total", "Sessions committed.")
        self.failures = counter("gamecraft_failures_total", "Sessions that failed, by cause.", ("reason",))
        self.restarts = counter("gamecraft_lane_restarts_total", "Lanes lost or restarted.", ("stage",))
        self.memory = gauge("gamecraft_lane_memory_bytes", "Largest memory of a stage's lanes.", ("stage",))
        self._ready: dict[tuple[str, int], float] = {}
        for stage in STAGES:
            self.queue.labels(stage).set_function(partial(queue_depth, stage))
            self.restarts.labels(stage)
        for state in ("active", "committed", "failed"):
            self.sessions.labels(state)

    def admitted(self, spec: SessionSpec, now: float) -> None:
        self.sessions.labels("active").inc()
        self._admitted[spec.session_id] = now

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        stage = receipt.stage
        self.stage_seconds.labels(stage).observe(receipt.seconds)
        self.stage_seconds.labels("queue").observe(max(0.0, receipt.started - ready_at))
        self.memory.labels(stage).set(receipt.facts.get("memory_bytes", 0))
        self.bytes.inc(receipt.facts.get("bytes", 0))
        self._busy[stage] += receipt.seconds
        wall = max(now - self._started, 1e-9)
        self.lane_busy.labels(stage).set(min(1.0, self._busy[stage] / (wall * max(1, self._lanes.get(stage, 1)))))
        if stage in self._recent:
            self._recent[stage].append((receipt.started, receipt.ended))
        if spec is None:
            return
        key = (spec.session_id, receipt.index)
        if stage == "denoise":
            self._ready[key] = ready_at
        elif stage == "decode":
            self._decoded(spec, receipt, wall)
        elif "fragment_key" in receipt.facts:
            self._stored(key, now)

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        self.sessions.labels("active").dec()
        self.sessions.labels("failed" if error else "committed").inc()
        if error:
            self.failures.labels(type(error).__name__).inc()
        else:
            self.commits.inc()
        self._admitted.pop(spec.session_id, None)
        self._last_chunk.pop(spec.session_id, None)
        for index in range(spec.num_chunks if error else 0):
            self._ready.pop((spec.session_id, index), None)

    def lane_lost(self, lane: Lane, error: FramelaneError, now: float) -> None:
        self.restarts.labels(lane.stage).inc()

    def refused(self, rows: int) -> None:
        """Rows that validation turned away."""
        self.sessions.labels("failed").inc(rows)
        self.failures.labels("BadInput").inc(rows)

    def _decoded(self, spec: SessionSpec, receipt: Receipt, wall: float) -> None:
        frames = receipt.facts.get("frames", 0)
        self.frames.inc(frames)
        self._video_seconds += frames / spec.fps
        self.realtime.set(self._video_seconds / wall)
        ratio = overlap_ratio(self._recent["decode"], self._recent["denoise"])
        if ratio is not None:
            self.overlap.set(ratio)

    def _stored(self, key: tuple[str, int], now: float) -> None:
        session_id, index = key
        if (ready := self._ready.pop(key, None)) is not None:
            self.e2e.observe(now - ready)
        if index == 0 and session_id in self._admitted:
            self.first.observe(now - self._admitted[session_id])
        if (last := self._last_chunk.get(session_id)) is not None:
            self.interarrival.observe(now - last)
        self._last_chunk[session_id] = now
