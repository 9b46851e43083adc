"""The scheduler under whatever may happen: fleets that come and go, sessions of all kinds, failures, cancellations.

Its invariants are checked at every step, against counts that this test keeps itself.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import Order, Receipt, Stage
from gamecraft_core.base.spec import ActionControl, Priority, SessionSpec
from orchestrator.board import Board
from orchestrator.limits import Limits, TenantLimits
from orchestrator.scheduler import Scheduler
from orchestrator.tasks import Task
from tests.fakes.lanes import facts_of
from tests.fakes.sessions import provenance, session


@dataclass(eq=False)
class Lane:
    """The facts of a lane; this simulation carries the work itself."""

    name: str
    stage: Stage
    sp_degree: int = 1
    depth: int = 2
    preset: str | None = None
    speed: float | None = None
    draining: bool = False


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
    tenants=st.just({"a": TenantLimits(weight=3.0)}),
)
#: Chunks, tenant, how it is asked for.
Asked = tuple[int, str, str]
SESSIONS: st.SearchStrategy[list[Asked]] = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from("ab"), st.sampled_from(["batch", "live", "open"])),
    min_size=1,
    max_size=10,
)


class Simulation:
    """Events in time order; every dispatch gets a drawn duration, some end in an error of their session."""

    def __init__(self, lanes: list[Lane], limits: Limits, data: st.DataObject) -> None:
        self.limits, self.data = limits, data
        self.lanes = {lane.name: lane for lane in lanes}
        self.board = Board(limits, provenance)
        self.scheduler = Scheduler(limits, self.board.census)
        for lane in lanes:
            self.scheduler.add_lane(lane)  # type: ignore[arg-type]
        self.events: list[tuple[float, int, Task, Lane]] = []
        self.sequence = itertools.count()
        self.held: dict[Lane, list[Task]] = {lane: [] for lane in lanes}
        self.denoised: dict[str, list[int]] = {}
        self.degrees: dict[str, set[int]] = {}
        self.ended: list[str] = []
        self.cancelled: set[str] = set()
        self.orders: dict[Task, Order] = {}
        self.undecoded: set[tuple[str, int]] = set()
        self.unwritten: set[tuple[str, int]] = set()
        self.to_play: dict[str, int] = {}
        self.now = 0.0

    def dispatch(self) -> None:
        for each in self.scheduler.step():
            lane = self.lanes[each.lane.name]
            assert not lane.draining
            assert lane.stage == each.task.stage
            assert not each.task.dead
            self.held[lane].append(each.task)
            assert len(self.held[lane]) <= lane.depth
            self.orders[each.task], _ = self.board.order(each.task)
            self.count(each.task)
            seconds = self.data.draw(st.integers(1, 9))
            heapq.heappush(self.events, (self.now + seconds, next(self.sequence), each.task, lane))
        self.check_limits()
        self.check_work_conserving()

    def count(self, task: Task) -> None:
        if task.kind == "denoise":
            self.undecoded.add(_chunk(task))
        elif task.kind == "decode":
            self.unwritten.add(_chunk(task))

    def check_limits(self) -> None:
        credits = self.scheduler.credits
        assert credits.undecoded.total == len(self.undecoded) <= self.limits.max_undecoded
        assert credits.unwritten.total == len(self.unwritten) <= self.limits.max_unwritten
        for each in self.board.active.values():
            assert each.undecoded <= self.limits.max_undecoded_per_session

    def check_work_conserving(self) -> None:
        """No lane idles while something that it may run is ready and no limit forbids it."""
        full = self.board.census.payload_bytes >= self.limits.max_payload_bytes
        forbidden: dict[Stage, bool] = {
            "encode": full,
            "denoise": full or len(self.undecoded) >= self.limits.max_undecoded,
            "decode": len(self.unwritten) >= self.limits.max_unwritten,
        }
        for lane, held in self.held.items():
            if held or lane.draining or forbidden.get(lane.stage, False):
                continue
            for task in self.scheduler.ready(lane.stage):
                _, preset, degree = task.need
                fits = lane.preset in (None, preset) and degree in (None, lane.sp_degree)
                assert not fits, f"{lane.name} idles while {task.kind} is ready"

    def end_one(self) -> None:
        self.now, _, task, lane = heapq.heappop(self.events)
        if lane not in self.held:
            return
        fails = task.kind in ("encode", "denoise", "decode") and self.data.draw(st.integers(0, 24)) == 0
        self.take_from(lane, task, succeeded=not fails)
        if fails:
            if not task.dead:
                self.fail(task)
            return
        self.settle(task, lane)

    def take_from(self, lane: Lane, task: Task, *, succeeded: bool) -> None:
        self.held[lane].remove(task)
        self.uncount(task, succeeded=succeeded)
        out = self.scheduler.ended(task, lane, succeeded=succeeded)  # type: ignore[arg-type]
        assert out == (lane.draining and not self.held[lane]), "a draining lane leaves with its last order"
        if out:
            del self.held[lane], self.lanes[lane.name]

    def uncount(self, task: Task, *, succeeded: bool) -> None:
        match task.kind, succeeded:
            case ("denoise", False) | ("decode", True):
                self.undecoded.discard(_chunk(task))
            case ("decode", False) | ("write", True) | ("commit", True):
                self.unwritten.discard(_chunk(task))

    def settle(self, task: Task, lane: Lane) -> None:
        name = task.session.spec.session_id if task.session else ""
        if task.kind == "denoise" and not task.dead:
            self.denoised.setdefault(name, []).append(task.index)
            self.degrees.setdefault(name, set()).add(lane.sp_degree)
        if task.kind in ("commit", "fail") and name not in self.cancelled:
            self.ended.append(name)
        receipt = Receipt(
            stage=task.stage,
            session_id=name,
            index=task.index,
            lane=lane.name,
            started=self.now,
            ended=self.now,
            facts=facts_of(self.orders[task]),
        )
        self.scheduler.push(self.board.settle(task, receipt, object(), lane.sp_degree, self.now))

    def fail(self, task: Task) -> None:
        assert task.session is not None
        self.forget(task.session.spec.session_id)
        self.scheduler.forget(task.session)
        self.scheduler.push(self.board.fail(task, BadInput("drawn"), self.now))

    def forget(self, name: str) -> None:
        self.undecoded = {chunk for chunk in self.undecoded if chunk[0] != name}
        self.unwritten = {chunk for chunk in self.unwritten if chunk[0] != name}

    def meddle(self) -> None:
        """Perhaps a session is called off, or a lane joins, drains or is lost."""
        what = self.data.draw(st.sampled_from(["nothing"] * 8 + ["play"] * 4 + ["cancel", "join", "drain", "lose"]))
        if what == "play":
            self.play()
        elif what == "cancel" and self.board.active:
            found = self.board.active[self.data.draw(st.sampled_from(sorted(self.board.active)))]
            if found.state == "active":
                self.cancelled.add(found.spec.session_id)
                self.forget(found.spec.session_id)
                self.scheduler.forget(found)
                self.scheduler.push(self.board.cancel(found, self.now))
        elif what == "join":
            kinds = st.sampled_from(sorted({(lane.stage, lane.sp_degree, lane.depth) for lane in self.lanes.values()}))
            lane = Lane(f"new-{next(self.sequence)}", *self.data.draw(kinds))
            self.lanes[lane.name] = lane
            self.held[lane] = []
            self.scheduler.add_lane(lane)  # type: ignore[arg-type]
        elif what in ("drain", "lose"):
            self.take_out(self.data.draw(st.sampled_from(sorted(self.lanes))), lose=what == "lose")

    def play(self) -> None:
        """One open session is given its next control, or told that there are no more."""
        under_way = sorted(name for name in self.to_play if name in self.board.active)
        if not under_way:
            return
        name = self.data.draw(st.sampled_from(under_way))
        self.to_play[name] -= 1
        if self.to_play[name] >= 0:
            self.scheduler.push(self.board.extend(self.board.active[name], [ActionControl("w", 0.2)], self.now))
        else:
            del self.to_play[name]
            self.scheduler.push(self.board.finish(self.board.active[name], self.now))

    def take_out(self, name: str, *, lose: bool) -> None:
        lane = self.lanes[name]
        like = [
            o for o in self.lanes.values() if (o.stage, o.sp_degree, o.draining) == (lane.stage, lane.sp_degree, False)
        ]
        if [each for each in like if each is not lane] == []:
            return  # the last of its kind stays: sessions may be pinned to it
        if lose:
            self.scheduler.remove_lane(lane)  # type: ignore[arg-type]
            del self.lanes[name]
            for task in self.held.pop(lane):
                self.uncount(task, succeeded=False)
                assert not self.scheduler.ended(task, lane, succeeded=False)  # type: ignore[arg-type]
                if not task.dead:
                    self.scheduler.push([task])
            return
        lane.draining = True
        out = self.scheduler.drain_lane(lane)  # type: ignore[arg-type]
        assert out == (not self.held[lane])
        if out:
            del self.held[lane], self.lanes[name]


def _chunk(task: Task) -> tuple[str, int]:
    assert task.session is not None
    return task.session.spec.session_id, task.index


def _spec(number: int, asked: Asked) -> SessionSpec:
    chunks, tenant, how = asked
    priority: Priority = "batch" if how == "batch" else "interactive"
    spec = session(f"s{number}", chunks=chunks, tenant=tenant, priority=priority)
    return replace(spec, controls=(), open=True) if how == "open" else spec


@settings(max_examples=80)
@given(FLEETS, LIMITS, SESSIONS, st.data())
def test_everything_ends_once_in_order_and_within_limits(
    lanes: list[Lane], limits: Limits, asked: list[Asked], data: st.DataObject
) -> None:
    simulation = Simulation(lanes, limits, data)
    waiting = [_spec(number, each) for number, each in enumerate(asked)]
    simulation.to_play = {spec.session_id: asked[n][0] for n, spec in enumerate(waiting) if spec.open}
    batch = {spec.session_id for spec in waiting if spec.priority == "batch"}
    names = {spec.session_id for spec in waiting}
    while waiting or simulation.board.active:
        while waiting and len(simulation.board.active) < limits.max_sessions:
            spec = waiting.pop(0)
            base = simulation.scheduler.newcomer(spec)
            simulation.scheduler.push(simulation.board.admit(spec, base, simulation.now))
        simulation.dispatch()
        simulation.meddle()
        simulation.dispatch()
        while not simulation.events and any(name in simulation.board.active for name in simulation.to_play):
            simulation.play()
            simulation.dispatch()
        assert simulation.events or not simulation.board.active, "something always moves"
        if simulation.events:
            simulation.end_one()
    while simulation.events:
        simulation.end_one()  # what lanes still answer for sessions that have ended
    assert sorted(simulation.ended) == sorted(names - simulation.cancelled), "nothing lost, nothing twice"
    for chunks in simulation.denoised.values():
        assert chunks == list(range(len(chunks))), "chunks in order"
    assert all(len(found) == 1 for name, found in simulation.degrees.items() if name in batch), "batch stays pinned"
    assert simulation.board.census.payload_bytes == 0
    assert simulation.scheduler.credits.undecoded.total == 0
    assert simulation.scheduler.credits.unwritten.total == 0
    assert simulation.board.census.sessions == 0
