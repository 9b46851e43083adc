"""The metrics themselves: documented, bounded, and right by hand-computed numbers of a run under the virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
from orchestrator.census import Census
from orchestrator.engine import Engine
from orchestrator.instruments import OPERATIONS
from orchestrator.limits import Limits
from orchestrator.metrics import METRICS, Metrics, markdown, reason_of
from orchestrator.scheduler import Scheduler
from orchestrator.shard_book import ShardBook
from tests.fakes import virtual_time
from tests.fakes.lanes import Behaviour, FakeLane
from tests.fakes.sessions import provenance, session

DOCUMENT = Path(__file__).resolve().parents[2] / "infra" / "prometheus" / "METRICS.md"

SECONDS = {"TextOrder": 0.5, "EncodeOrder": 1.0, "DenoiseOrder": 4.0, "DecodeOrder": 2.0, "WriteOrder": 0.25}


@dataclass(eq=False)
class GpuLane(FakeLane):
    """A fake lane that says what it reserves."""

    gpus: float = 0.0


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
        metrics = Metrics(lanes, scheduler, clock(), clock)
        metrics.job(len(rows), sum(row.num_chunks for row in rows), lambda: (0, 0))
        engine = Engine(lanes, board, scheduler, Limits(), ShardBook(len(rows), 4), [metrics], clock)
        metrics.attach(engine)
        assert await engine.run(iter(rows))
        metrics.at_end = generate_latest(metrics.registry).decode()  # type: ignore[attr-defined]
        return metrics

    return virtual_time.run(main())


def watching(*stages: Stage, now: float, gpus: float = 0.0, census: Census | None = None) -> Metrics:
    """Metrics since 0, read at ``now``, of a lane for each of ``stages`` and of a scheduler that has nothing to do."""
    lanes = [GpuLane(f"{stage}-{n}", stage, usual, gpus=gpus) for n, stage in enumerate(stages)]
    return Metrics(lanes, Scheduler(Limits(), census or Census()), 0.0, lambda: now)


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
    assert not metrics._sessions
    assert all(len(kept) <= 256 for kept in metrics._recent.values())


def test_a_session_that_is_called_off_is_neither_committed_nor_failed() -> None:
    metrics = watching(now=0.0)
    came, waited = session("came"), session("waited")
    metrics.admitted(came, 0.0)
    for spec in (came, waited):
        metrics.finished(spec, Cancelled("called off"), 1.0)
    metrics.at_end = generate_latest(metrics.registry).decode()  # type: ignore[attr-defined]
    assert [value(metrics, "sessions", state=state) for state in ("active", "committed", "failed")] == [0, 0, 0]


def test_two_orders_that_overlap_in_a_lane_keep_it_busy_once() -> None:
    metrics = watching(*STAGES, now=10.0)
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
    metrics = watching("denoise", "denoise", now=1.0)
    lane = FakeLane("denoise-0", "denoise", usual)
    for _ in range(2):
        metrics.lane_lost(lane, LaneLost("preempted"), 1.0)
        assert metrics.registry.get_sample_value("gamecraft_lanes_missing", {"stage": "denoise"}) == 1.0
        metrics.lane_left(lane, 1.0)
        metrics.lane_left(lane, 2.0)
        assert metrics.registry.get_sample_value("gamecraft_lanes_missing", {"stage": "denoise"}) == 0.0


def test_lanes_are_counted_as_they_come_and_go_and_used_for_as_long_as_they_are_there() -> None:
    """Two lanes for 10 s, a third from 4 to 8; 11 s of work in their 24."""
    metrics = watching("denoise", "denoise", now=10.0)
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


def test_a_job_knows_how_far_it_is_and_what_the_store_did() -> None:
    """Of nine rows three fail: what they will never make does not count as left."""
    rows = [session(f"secret-{i}", chunks=3, row=i + 1) for i in range(9)]
    metrics = run(rows, faulty, groups=5)
    assert value(metrics, "job_rows") == value(metrics, "job_rows_settled") == 9
    assert value(metrics, "job_chunks") == value(metrics, "job_chunks_settled") == 27
    assert value(metrics, "chunks_stored_total") == 6 * 3
    assert value(metrics, "sessions_admitted_total") == 9
    assert value(metrics, "video_seconds_total") == pytest.approx(value(metrics, "frames_total") / 25)
    of = {name: value(metrics, "store_seconds_count", operation=name) for name in OPERATIONS}
    assert of == {"chunk": 12, "restore": 0, "commit": 6, "failure": 3, "publish": 3}
    assert value(metrics, "last_chunk_timestamp_seconds") > 0
    assert value(metrics, "bound_usage", bound="payload_bytes") == 0
    assert value(metrics, "bound_limit", bound="undecoded_chunks") == Limits().max_undecoded
    assert value(metrics, "bound_limit", bound="waiting_sessions") == Limits().max_queued
    assert value(metrics, "drain_grace_seconds") == Limits().grace_seconds
    assert value(metrics, "drain_started_timestamp_seconds") == 0


def test_what_is_stored_after_a_session_went_back_counts_once() -> None:
    metrics = watching(*STAGES, now=9.0)
    metrics.job(1, 4, lambda: (0, 0))
    spec = session("a", chunks=4)
    metrics.admitted(spec, 0.0)
    for index in range(3):
        metrics.settled(spec, written("a", index, record={}), 0.0, 1.0)
    settled = partial(metrics.registry.get_sample_value, "gamecraft_job_chunks_settled")
    assert settled() == 3
    metrics.settled(spec, written("a", 0, stored=False, chunks=[{}, {}]), 0.0, 2.0)
    assert settled() == 2, "the third was not found again"
    metrics.finished(spec, None, 3.0)
    assert settled() == 4


def written(name: str, index: int, *, stored: bool = True, **facts: object) -> Receipt:
    facts = {"stored": True, **facts} if stored else facts
    return Receipt(stage="write", session_id=name, index=index, lane="write-0", started=0.0, ended=1.0, facts=facts)


def test_what_viewers_see_is_measured_for_who_watches_alone() -> None:
    census = Census()
    metrics = watching(*STAGES, now=9.0, census=census)
    live, batch = session("live", chunks=1, priority="interactive", open=True), session("batch", chunks=1)
    for spec in (live, batch):
        census.came(spec)
        metrics.admitted(spec, 0.0)
    sample = metrics.registry.get_sample_value
    assert sample("gamecraft_live_sessions") == 1
    for spec in (live, batch):
        metrics.decoded(spec, 0, None, 2.0)
    metrics.asked(live, 1, 3.0)
    metrics.decoded(live, 1, None, 4.0)
    assert sample("gamecraft_action_to_frame_seconds_count") == 2
    assert sample("gamecraft_action_to_frame_seconds_sum") == 2.0 + 1.0
    assert sample("gamecraft_live_video_seconds_total") == pytest.approx(2 * 33 / 25)
    assert sample("gamecraft_stalls_total") == 1, "the first had been played at 3.32"
    assert sample("gamecraft_stall_seconds_total") == pytest.approx(4.0 - 2.0 - 33 / 25)
    metrics.settled(live, written("live", 1, committed=True), 3.0, 5.0)
    assert sample("gamecraft_chunks_stored_total") == 0, "an open session's record stores no chunk"


def test_work_without_a_chunk_is_a_stall_and_rest_is_none() -> None:
    now, census = [100.0], Census()
    scheduler = Scheduler(Limits(), census)
    metrics = Metrics([], scheduler, 0.0, lambda: now[0])
    stalled = partial(metrics.registry.get_sample_value, "gamecraft_stalled_seconds")
    assert stalled() == 0.0, "there is nothing to do"
    scheduler.park()
    now[0] = 130.0
    assert stalled() == 30.0
    spec = session("a", chunks=2)
    metrics.admitted(spec, 120.0)
    metrics.settled(spec, written("a", 0, record={}), 120.0, 125.0)
    assert stalled() == 5.0


def test_gpu_seconds_are_those_of_lanes_that_were_there() -> None:
    """Two lanes of two GPUs for 10 s, of which one goes after 4; its node had said so."""
    metrics = watching("denoise", "denoise", now=10.0, gpus=2.0)
    gone = GpuLane("denoise-1", "denoise", usual, gpus=2.0)
    metrics.lane_leaving(gone, 3.0)
    metrics.lane_left(gone, 4.0)
    of = partial(metrics.registry.get_sample_value, labels={"stage": "denoise"})
    assert of("gamecraft_gpu_seconds_total") == 2 * 10 + 2 * 4
    assert of("gamecraft_lane_seconds_total") == 10 + 4
    assert of("gamecraft_node_notices_total") == 1


def test_the_limit_is_that_of_the_lane_that_holds_most() -> None:
    metrics = watching("decode", "decode", now=2.0)
    for lane, held, could in (("decode-0", 5, 50), ("decode-1", 7, 8)):
        facts = {"memory_bytes": held, "memory_limit_bytes": could, "frames": 33}
        receipt = Receipt(stage="decode", session_id="a", index=0, lane=lane, started=0.0, ended=1.0, facts=facts)
        metrics.settled(session("a"), receipt, 0.0, 1.0)
    of = partial(metrics.registry.get_sample_value, labels={"stage": "decode"})
    assert (of("gamecraft_lane_memory_bytes"), of("gamecraft_lane_memory_limit_bytes")) == (7, 8)
    assert of("gamecraft_lane_busy_seconds_total") == 2.0


def test_a_draining_run_says_since_when() -> None:
    async def main() -> float | None:
        clock = asyncio.get_running_loop().time
        census = Census()
        scheduler = Scheduler(Limits(), census)
        metrics = Metrics([], scheduler, clock(), clock)
        engine = Engine([], Board(Limits(), provenance), scheduler, Limits(), None, [metrics], clock)
        metrics.attach(engine)
        await asyncio.sleep(7)
        engine.stop()
        await asyncio.sleep(2)
        engine.stop()
        return metrics.registry.get_sample_value("gamecraft_drain_started_timestamp_seconds")

    assert virtual_time.run(main()) == 7.0
