"""The scheduler under arbitrary fleets, sessions, durations and failures: its invariants, checked at every step."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import Order, Receipt, Stage
from orchestrator.board import Board
from orchestrator.limits import Limits
from orchestrator.scheduler import Scheduler
from orchestrator.tasks import Task
from tests.fakes.lanes import facts_of
from tests.fakes.sessions import provenance, session


@dataclass(frozen=True)
class Lane:
    """The facts of a lane; this simulation carries the work itself."""

    name: str
    stage: Stage
    sp_degree: int = 1
    depth: int = 2
    preset: str | None = None


FLEETS = st.builds(
    lambda degrees, decoders, depth: [
        Lane("text", "text"),
        Lane("encode", "encode"),
        *(Lane(f"denoise-{number}", "denoise", degree, depth) for number, degree in enumerate(degrees)),
        *(Lane(f"decode-{number}", "decode", depth=depth) for number in range(decoders)),
        Lane("write", "write"),
    ],
    st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 3),
)
LIMITS = st.builds(
    Limits,
    max_sessions=st.integers(1, 8),
    max_undecoded_per_session=st.integers(1, 3),
    max_undecoded=st.integers(1, 6),
    max_unwritten=st.integers(1, 6),
    max_payload_bytes=st.sampled_from([1, 30, 1 << 30]),
)


class Simulation:
    """Events in time order; every dispatch gets a drawn duration, some end in an error of their session."""

    def __init__(self, lanes: list[Lane], limits: Limits, data: st.DataObject) -> None:
        self.lanes, self.limits, self.data = lanes, limits, data
        self.board = Board(limits, provenance)
        self.scheduler = Scheduler(limits, lambda: self.board.payload_bytes)
        for lane in lanes:
            self.scheduler.add_lane(lane)  # type: ignore[arg-type]
        self.events: list[tuple[float, int, Task, Lane]] = []
        self.sequence = itertools.count()
        self.held = {lane.name: 0 for lane in lanes}
        self.denoised: dict[str, list[int]] = {}
        self.ended: list[str] = []
        self.orders: dict[Task, Order] = {}
        self.now = 0.0

    def dispatch(self) -> None:
        for each in self.scheduler.step():
            lane = next(lane for lane in self.lanes if lane.name == each.lane.name)
            self.held[lane.name] += 1
            assert self.held[lane.name] <= lane.depth
            assert lane.stage == each.task.stage
            self.orders[each.task], _ = self.board.order(each.task)
            seconds = self.data.draw(st.integers(1, 9))
            heapq.heappush(self.events, (self.now + seconds, next(self.sequence), each.task, lane))
        for stage in ("text", "encode", "write"):
            idle = any(self.held[lane.name] < lane.depth for lane in self.lanes if lane.stage == stage)
            held_back = stage == "encode" and self.board.payload_bytes >= self.limits.max_payload_bytes
            assert not (idle and not held_back and self.live(stage)), "work-conserving"

    def live(self, stage: Stage) -> int:
        queues = self.scheduler._ready[stage].values()
        return sum(not task.dead for queue in queues for _, _, task in queue)

    def end_one(self) -> None:
        self.now, _, task, lane = heapq.heappop(self.events)
        self.held[lane.name] -= 1
        name = task.session.spec.session_id if task.session else ""
        fails = task.kind in ("encode", "denoise", "decode") and self.data.draw(st.integers(0, 24)) == 0
        self.scheduler.ended(task, lane, succeeded=not fails)  # type: ignore[arg-type]
        if fails:
            if not task.dead:
                assert task.session is not None
                self.scheduler.forget(task.session)
                self.scheduler.push(self.board.fail(task, BadInput("drawn"), self.now))
            return
        if task.kind == "denoise" and not task.dead:
            self.denoised.setdefault(name, []).append(task.index)
        if task.kind in ("commit", "fail"):
            self.ended.append(name)
        facts = facts_of(self.orders[task])
        receipt = Receipt(
            stage=task.stage,
            session_id=name,
            index=task.index,
            lane=lane.name,
            started=self.now,
            ended=self.now,
            facts=facts,
        )
        self.scheduler.push(self.board.settle(task, receipt, object(), lane.sp_degree, self.now))


@settings(max_examples=60)
@given(FLEETS, LIMITS, st.lists(st.integers(1, 4), min_size=1, max_size=10), st.data())
def test_everything_ends_once_in_order_and_within_limits(
    lanes: list[Lane], limits: Limits, lengths: list[int], data: st.DataObject
) -> None:
    simulation = Simulation(lanes, limits, data)
    waiting = [session(f"s{number}", chunks=length) for number, length in enumerate(lengths)]
    names = {spec.session_id for spec in waiting}
    while waiting or simulation.events or simulation.board.active:
        while waiting and len(simulation.board.active) < limits.max_sessions:
            base = simulation.scheduler.virtual_time.now
            simulation.scheduler.push(simulation.board.admit(waiting.pop(0), base, simulation.now))
        simulation.dispatch()
        assert simulation.events, "something always moves"
        simulation.end_one()
        for each in simulation.board.active.values():
            assert each.undecoded <= limits.max_undecoded_per_session
    assert sorted(simulation.ended) == sorted(names), "nothing lost, nothing twice"
    for chunks in simulation.denoised.values():
        assert chunks == list(range(len(chunks))), "chunks in order"
    assert simulation.board.payload_bytes == 0
    assert simulation.scheduler._undecoded.total == 0
    assert simulation.scheduler._unwritten.total == 0
