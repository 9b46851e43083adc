"""The names of the run's Prometheus metrics, and the instruments behind them, on one registry of the control plane.

Invariants: a label's values are those that its ``Spec`` lists, never a session, a chunk or a prompt; every series is
there from the start, at zero. ``infra/prometheus/METRICS.md`` is ``markdown()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gamecraft_core.base.messages import STAGES

#: Seconds. From a tiny model's step to ten minutes of a base model's chunk.
BUCKETS = (
    0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0,
    20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip

STATES = ("active", "committed", "failed")
#: Classes of ``base.errors`` that end a session; ``other`` is any that is none of these.
REASONS = ("BadInput", "Poisoned", "LaneLost", "StoreUnavailable", "other")
#: What a write lane does for an order.
OPERATIONS = ("chunk", "restore", "commit", "failure", "publish")
#: What ``limits`` bounds; the unit is in the name.
BOUNDS = ("sessions", "waiting_sessions", "undecoded_chunks", "unwritten_chunks", "payload_bytes")
#: Why the service refuses: the queue is full, a tenant has all it may have, controls too far ahead, it starts or stops.
Refused = Literal["queue", "quota", "ahead", "not_ready"]
REFUSALS: tuple[Refused, ...] = get_args(Refused)


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric as readers meet it; ``labels`` gives every value of its label. ``asked``: when the endpoint is."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asked: bool = False


_STAGE = {"stage": STAGES}
_Asked = partial(Spec, asked=True)

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
    _Asked("gamecraft_chunks_stored_total", "counter", "Chunks made durable."),
    _Asked("gamecraft_last_chunk_timestamp_seconds", "gauge", "When the last chunk was stored; 0: none yet."),
    _Asked(
        "gamecraft_stalled_seconds",
        "gauge",
        "How long there has been work without a chunk stored; 0 while there is no work.",
    ),
    _Asked("gamecraft_frames_total", "counter", "Pixel frames decoded."),
    _Asked("gamecraft_video_seconds_total", "counter", "Seconds of video decoded."),
    _Asked("gamecraft_realtime_factor", "gauge", "Video seconds made per wall second, since the start."),
    Spec(
        "gamecraft_action_to_frame_seconds",
        "histogram",
        "Live: from an accepted control, or the chunk before it if that came later, to its chunk shown.",
    ),
    _Asked("gamecraft_live_video_seconds_total", "counter", "Seconds of video shown in live sessions."),
    _Asked("gamecraft_stalls_total", "counter", "Chunks asked for in time that came after play had ended."),
    _Asked("gamecraft_stall_seconds_total", "counter", "Seconds that viewers stood still because of that."),
    _Asked("gamecraft_live_sessions", "gauge", "Live sessions among the active ones."),
    Spec("gamecraft_sessions", "gauge", "Sessions of this start by state.", {"state": STATES}),
    _Asked("gamecraft_sessions_admitted_total", "counter", "Sessions let in."),
    Spec("gamecraft_refusals_total", "counter", "Requests refused: come again later.", {"reason": REFUSALS}),
    _Asked("gamecraft_job_rows", "gauge", "Rows of the job's manifest; 0: it is no job."),
    _Asked("gamecraft_job_rows_settled", "gauge", "Rows committed, failed or refused, in this start or before."),
    _Asked("gamecraft_job_chunks", "gauge", "Chunks of the manifest's good rows."),
    _Asked("gamecraft_job_chunks_settled", "gauge", "Of them, those stored or given up, in this start or before."),
    _Asked("gamecraft_queue_depth", "gauge", "Ready tasks that no lane has taken.", _STAGE),
    _Asked("gamecraft_orders_in_flight", "gauge", "Orders that lanes hold.", _STAGE),
    _Asked("gamecraft_orders_parked", "gauge", "Orders that wait for an absent store."),
    _Asked("gamecraft_bound_usage", "gauge", "How much there is of what a limit bounds.", {"bound": BOUNDS}),
    _Asked("gamecraft_bound_limit", "gauge", "The limit.", {"bound": BOUNDS}),
    _Asked("gamecraft_lane_busy_ratio", "gauge", "Busy share of the time that a stage had lanes.", _STAGE),
    _Asked("gamecraft_lane_busy_seconds_total", "counter", "Seconds in which lanes worked.", _STAGE),
    _Asked("gamecraft_lane_seconds_total", "counter", "Seconds in which lanes were there, busy or not.", _STAGE),
    _Asked("gamecraft_gpu_seconds_total", "counter", "The same, times the GPUs that a lane reserves.", _STAGE),
    _Asked("gamecraft_overlap_ratio", "gauge", "Share of recent decode-busy time with some denoise lane busy."),
    _Asked("gamecraft_output_bytes_total", "counter", "Bytes stored."),
    Spec("gamecraft_outputs_committed_total", "counter", "Sessions committed."),
    Spec("gamecraft_failures_total", "counter", "Sessions that failed, by kind of error.", {"reason": REASONS}),
    Spec("gamecraft_store_seconds", "histogram", "Time a write lane takes for an order.", {"operation": OPERATIONS}),
    Spec("gamecraft_store_retries_total", "counter", "Orders that found the store absent and wait for it.", _STAGE),
    Spec("gamecraft_lane_restarts_total", "counter", "Lanes lost or restarted.", _STAGE),
    _Asked("gamecraft_lanes", "gauge", "Lanes that the run has, draining ones too, lost ones not.", _STAGE),
    _Asked("gamecraft_lanes_missing", "gauge", "Lanes lost that nothing has replaced yet.", _STAGE),
    _Asked("gamecraft_lanes_draining", "gauge", "Lanes that take no more orders and still hold some.", _STAGE),
    Spec("gamecraft_node_notices_total", "counter", "Lanes sent away because their node is about to go.", _STAGE),
    _Asked(
        "gamecraft_lane_memory_bytes",
        "gauge",
        "Memory of a stage's largest lane: the GPU's where it uses one, else resident.",
        _STAGE,
    ),
    _Asked(
        "gamecraft_lane_memory_limit_bytes",
        "gauge",
        "What that lane could have: its own and what is free, on its GPU or in its container or machine.",
        _STAGE,
    ),
    _Asked("gamecraft_drain_started_timestamp_seconds", "gauge", "When the run was asked to stop; 0: it was not."),
    _Asked("gamecraft_drain_grace_seconds", "gauge", "How long it then finishes what is under way."),
)  # fmt: skip


def markdown() -> str:
    """The table of ``infra/prometheus/METRICS.md``."""
    buckets = ", ".join(f"{bucket:g}" for bucket in BUCKETS)
    lines = [
        "# Metrics",
        "",
        "One endpoint for a job, on port 9108 unless `--metrics-port` says otherwise (0 takes a free one); its URL is",
        "logged and stands in `run.json`. The service has it at `/metrics`, behind its tokens if it has any.",
        "No label ever holds a session, a chunk or a prompt.",
        "",
        "| name | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for spec in METRICS:
        labels = "; ".join(f"`{label}`: {', '.join(values)}" for label, values in spec.labels.items())
        lines.append(f"| `{spec.name}` | {spec.kind} | {labels} | {spec.text} |")
    return "\n".join([*lines, "", f"Buckets of the histograms, in seconds: {buckets}.", ""])


Kind = TypeVar("Kind", Histogram, Gauge, Counter)

#: What a metric is looked up by: its name without ``gamecraft_``, and its label's value where it has a label.
_Key = tuple[str, ...]


class Instruments(Collector):
    """METRICS on a registry of their own. What is ``asked`` for is read from functions when the endpoint is."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._histograms: dict[_Key, Histogram] = {}
        self._gauges: dict[_Key, Gauge] = {}
        self._counters: dict[_Key, Counter] = {}
        self._asked: dict[_Key, Callable[[], float]] = {}
        for spec in METRICS:
            if spec.asked:
                continue
            names = (spec.name, spec.text, tuple(spec.labels))
            if spec.kind == "histogram":
                _add(self._histograms, spec, Histogram(*names, buckets=BUCKETS, registry=self.registry))
            elif spec.kind == "gauge":
                _add(self._gauges, spec, Gauge(*names, registry=self.registry))
            else:
                _add(self._counters, spec, Counter(*names, registry=self.registry))
        self.registry.register(self)

    def histogram(self, name: str, *label: str) -> Histogram:
        return self._histograms[name, *label]

    def gauge(self, name: str, *label: str) -> Gauge:
        return self._gauges[name, *label]

    def counter(self, name: str, *label: str) -> Counter:
        return self._counters[name, *label]

    def ask(self, function: Callable[[], float], name: str, *label: str) -> None:
        """From now on ``function`` says the value. It is called from the endpoint's thread."""
        self._asked[name, *label] = function

    def collect(self) -> Iterator[Metric]:
        for spec in METRICS:
            if spec.asked:
                family = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
                metric = family(spec.name, spec.text, labels=tuple(spec.labels))
                for label in _values(spec):
                    function = self._asked.get((_short(spec), *label))
                    metric.add_metric(label, function() if function else 0.0)
                yield metric


def _add(known: dict[_Key, Kind], spec: Spec, metric: Kind) -> None:
    """Note each series by name and label: a look-up is paid at each use."""
    short = spec.name.removeprefix("gamecraft_")
    if not spec.labels:
        known[short,] = metric
    for (label,) in _values(spec) if spec.labels else []:
        known[short, label] = metric.labels(label)


def _values(spec: Spec) -> list[_Key]:
    """Of its label, if it has one: there is one at most."""
    values: list[_Key] = [(value,) for values in spec.labels.values() for value in values]
    return values or [()]


def _short(spec: Spec) -> str:
    return spec.name.removeprefix("gamecraft_")
