"""The metrics themselves: documented, bounded, and right by hand-computed numbers of a run under the virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gamecraft_core.base.errors import (
    BadInput,
    Cancelled,
    FramelaneError,
    LaneLost,
    OutputTaken,
    Poisoned,
    StoreUnavailable,
)
from gamecraft_core.base.messages import STAGES, DecodeOrder, DenoiseOrder, EncodeOrder, Order, Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.board import Board
from orchestrator.engine import Engine
from orchestrator.limits import Limits
from orchestrator.metrics import METRICS, Metrics, markdown, reason_of
from orchestrator.scheduler import Scheduler
from orchestrator.shard_book import ShardBook
from tests.fakes import virtual_time
from tests.fakes.lanes import Behaviour, FakeLane
from tests.fakes.sessions import provenance, session

DOCUMENT = Path(__file__).resolve().parents[2] / "infra" / "prometheus" / "METRICS.md"

SECONDS = {"TextOrder": 0.5, "EncodeOrder": 1.0, "DenoiseOrder": 4.0, "DecodeOrder": 2.0, "WriteOrder": 0.25}


def usual(order: Order) -> float:
    return SECONDS.get(type(order).__name__, 0.125)


def run(rows: Sequence[SessionSpec], behaviour: Behaviour = usual, groups: int = 1) -> Metrics:
    """Metrics of a whole job on fake lanes, read at its end."""

    async def main() -> Metrics:
        clock = asyncio.get_running_loop().time
        counts: dict[Stage, int] = {stage: groups if stage == "denoise" else 1 for stage in STAGES}
        lanes = [FakeLane(f"{stage}-{n}", stage, behaviour) for stage in STAGES for n in range(counts[stage])]
        board = Board(Limits(), provenance)
        scheduler = Scheduler(Limits(), board.census)
        metrics = Metrics(counts, scheduler.waiting, clock(), clock)
        engine = Engine(lanes, board, scheduler, Limits(), ShardBook(len(rows), 4), [metrics], clock)
        assert await engine.run(iter(rows))
        metrics.at_end = generate_latest(metrics.registry).decode()  # type: ignore[attr-defined]
        return metrics

    return virtual_time.run(main())


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """A sample as it stood when the job ended."""
    for family in text_string_to_metric_families(metrics.at_end):  # type: ignore[attr-defined]
        for sample in family.samples:
            if sample.name == f"gamecraft_{name}" and sample.labels == labels:
                return float(sample.value)
    raise KeyError(name)


def test_one_session_of_two_chunks_by_hand() -> None:
    metrics = run([session("a", chunks=2)])
    # start 1; denoise 1-5, 5-9; decode 5-7, 9-11; write 7-7.25; commit 11-11.125; publish .. 11.25
    assert value(metrics, "chunk_stage_seconds_sum", stage="denoise") == 8.0
    assert value(metrics, "chunk_stage_seconds_sum", stage="decode") == 4.0
    assert value(metrics, "chunk_stage_seconds_sum", stage="write") == 0.25 + 0.125
    assert value(metrics, "chunk_stage_seconds_count", stage="write") == 2
    assert value(metrics, "chunk_stage_seconds_count", stage="text") == 1
    assert value(metrics, "chunk_stage_seconds_sum", stage="queue") == 0.0
    assert value(metrics, "chunk_e2e_seconds_sum") == (7.25 - 1) + (11.125 - 5)
    assert value(metrics, "time_to_first_chunk_seconds_sum") == 7.25
    assert value(metrics, "chunk_interarrival_seconds_sum") == 11.125 - 7.25
    assert value(metrics, "frames_total") == 66
    assert value(metrics, "realtime_factor") == pytest.approx(66 / 25 / 11.25)
    assert value(metrics, "overlap_ratio") == 0.5
    assert value(metrics, "lane_busy_ratio", stage="denoise") == pytest.approx(8 / 11.25)
    assert value(metrics, "outputs_committed_total") == 1
    assert value(metrics, "output_bytes_total") == 100 + 200 + 200
    assert value(metrics, "sessions", state="committed") == 1
    assert value(metrics, "sessions", state="active") == 0
    assert value(metrics, "queue_depth", stage="denoise") == 0


def test_waiting_for_a_lane_is_the_queue_stage() -> None:
    metrics = run([session("a", chunks=1, row=1), session("b", chunks=1, row=2)])
    # b waits: 1 for encode, 1 + 4 - 2 for denoise; a's prompt is its own, its decode and write find their lanes free
    assert value(metrics, "chunk_stage_seconds_sum", stage="queue") == 1.0 + 3.0


def faulty(order: Order) -> float | FramelaneError:
    if isinstance(order, EncodeOrder) and order.session_id == "secret-1":
        return BadInput("no image")
    if isinstance(order, DecodeOrder) and order.session_id == "secret-2":
        return Poisoned("NaN")
    if isinstance(order, DenoiseOrder) and order.session_id == "secret-3" and order.index == 0:
        return LaneLost("killed")
    return usual(order)


def test_no_label_is_unbounded_and_every_series_is_documented() -> None:
    rows = [session(f"secret-{i}", chunks=3, row=i + 1, prompt=f"a secret harbour {i}") for i in range(12)]
    metrics = run(rows, faulty, groups=5)
    metrics.refused(3)
    text = metrics.at_end  # type: ignore[attr-defined]
    assert "secret" not in text
    allowed = {spec.name.removesuffix("_total"): spec for spec in METRICS}
    seen = set()
    for family in text_string_to_metric_families(text):
        name = family.name.removesuffix("_created")
        seen.add(name)
        for sample in family.samples:
            labels = {label: value for label, value in sample.labels.items() if label != "le"}
            assert set(labels) <= set(allowed[name].labels)
            for label, got in labels.items():
                assert got in allowed[name].labels[label]
    assert seen == set(allowed)
    assert value(metrics, "failures_total", reason="BadInput") == 1
    assert value(metrics, "failures_total", reason="Poisoned") == 2, "secret-3 broke three lanes"
    assert value(metrics, "lane_restarts_total", stage="denoise") == 3
    assert value(metrics, "sessions", state="failed") == 3
    assert value(metrics, "sessions", state="committed") == 9


def test_memory_is_bounded_by_the_sessions_under_way() -> None:
    metrics = run([session(f"s{i}", chunks=2, row=i + 1) for i in range(30)], faulty)
    assert not metrics._admitted
    assert not metrics._last_chunk
    assert not metrics._ready
    assert all(len(kept) <= 256 for kept in metrics._recent.values())


def test_a_session_that_is_called_off_is_neither_committed_nor_failed() -> None:
    metrics = Metrics({}, lambda stage: 0, 0.0, lambda: 0.0)
    came, waited = session("came"), session("waited")
    metrics.admitted(came, 0.0)
    for spec in (came, waited):
        metrics.finished(spec, Cancelled("called off"), 1.0)
    metrics.at_end = generate_latest(metrics.registry).decode()  # type: ignore[attr-defined]
    assert [value(metrics, "sessions", state=state) for state in ("active", "committed", "failed")] == [0, 0, 0]


def test_two_orders_that_overlap_in_a_lane_keep_it_busy_once() -> None:
    metrics = Metrics(dict.fromkeys(STAGES, 1), lambda stage: 0, 0.0, lambda: 10.0)
    for index, (started, ended) in enumerate([(0.0, 4.0), (2.0, 6.0)]):
        facts = {"memory_bytes": 5, "frames": 33}
        receipt = Receipt(
            stage="decode", session_id="a", index=index, lane="d", started=started, ended=ended, facts=facts
        )
        metrics.settled(session("a"), receipt, 0.0, ended)
    assert metrics.registry.get_sample_value("gamecraft_lane_busy_ratio", {"stage": "decode"}) == 0.6
    assert metrics.registry.get_sample_value("gamecraft_lane_memory_bytes", {"stage": "decode"}) == 5


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadInput("x"), "BadInput"),
        (Poisoned("x"), "Poisoned"),
        (LaneLost("x"), "LaneLost"),
        (StoreUnavailable("x"), "StoreUnavailable"),
        (OutputTaken("x"), "other"),
    ],
)
def test_reasons(error: FramelaneError, reason: str) -> None:
    assert reason_of(error) == reason


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == markdown(), "write orchestrator.metrics.markdown() to infra/prometheus/METRICS.md"


def test_a_lane_that_is_lost_while_it_drains_is_not_missing() -> None:
    metrics = Metrics({"denoise": 2}, lambda stage: 0, 0.0)
    lane = FakeLane("denoise-0", "denoise", usual)
    for _ in range(2):
        metrics.lane_lost(lane, LaneLost("preempted"), 1.0)
        assert metrics.registry.get_sample_value("gamecraft_lanes_missing", {"stage": "denoise"}) == 1.0
        metrics.lane_left(lane, 1.0)
        metrics.lane_left(lane, 2.0)
        assert metrics.registry.get_sample_value("gamecraft_lanes_missing", {"stage": "denoise"}) == 0.0


def test_lanes_are_counted_as_they_come_and_go_and_used_for_as_long_as_they_are_there() -> None:
    """Two lanes for 10 s, a third from 4 to 8; 11 s of work in their 24."""
    now = [10.0]
    metrics = Metrics({"denoise": 2}, lambda stage: 0, 0.0, lambda: now[0])
    value = metrics.registry.get_sample_value

    def there() -> tuple[float | None, float | None]:
        labels = {"stage": "denoise"}
        return value("gamecraft_lanes", labels), value("gamecraft_lanes_missing", labels)

    third = FakeLane("denoise-2", "denoise", usual)
    metrics.lane_joined(third, 4.0)
    assert there() == (3.0, 0.0)
    for lane, started, ended in [("denoise-0", 0.0, 8.0), ("denoise-2", 4.0, 7.0)]:
        facts = {"memory_bytes": 7 if lane == third.name else 3}
        receipt = Receipt(
            stage="denoise", session_id="a", index=0, lane=lane, started=started, ended=ended, facts=facts
        )
        metrics.settled(session("a"), receipt, 0.0, ended)
    assert value("gamecraft_lane_memory_bytes", {"stage": "denoise"}) == 7
    metrics.lane_lost(third, LaneLost("preempted"), 7.5)
    assert there() == (2.0, 1.0)
    metrics.lane_left(third, 8.0)
    assert there() == (2.0, 0.0)
    assert value("gamecraft_lane_memory_bytes", {"stage": "denoise"}) == 3
    assert value("gamecraft_lane_busy_ratio", {"stage": "denoise"}) == pytest.approx(11 / 24)
