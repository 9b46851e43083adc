"""Sessions that somebody plays: they are offered while the engine runs, and their controls come one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gamecraft_core.base.errors import Cancelled, LaneLost, StateLost
from gamecraft_core.base.messages import CommitOrder, DecodeOrder, DenoiseOrder, Order, RestoreOrder, WriteOrder
from gamecraft_core.base.spec import ActionControl, SessionSpec
from orchestrator.admission import Refusal, Wait
from orchestrator.board import Board
from orchestrator.engine import Engine
from orchestrator.limits import Limits
from orchestrator.recovery import RunAborted
from orchestrator.scheduler import Scheduler
from tests.fakes import virtual_time
from tests.fakes.lanes import restored
from tests.fakes.sessions import provenance, session
from tests.fakes.world import Ledger, World, usual

W, A, D = (ActionControl(key, 0.2) for key in "wad")
LONG = 1000.0


def played(name: str, **changes: Any) -> SessionSpec:
    return session(name, 0, open=True, priority="interactive", prompt=name, **changes)


class Audience(Ledger):
    """Keeps which chunks could be shown, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, list[tuple[int, float]]] = {}
        self.ended = asyncio.Event()

    def decoded(self, spec: SessionSpec, index: int, fragment: Any, now: float) -> None:
        assert isinstance(fragment[1], DecodeOrder)
        self.shown.setdefault(spec.session_id, []).append((index, now))

    def finished(self, spec: SessionSpec, error: Any, now: float) -> None:
        super().finished(spec, error, now)
        self.ended.set()


class Served:
    """A world whose engine serves while ``play`` acts on it in virtual time."""

    def __init__(self, world: World, limits: Limits | None = None) -> None:
        self.world = world
        self.limits = limits or Limits()

    def run(self, play: Callable[[Engine], Awaitable[None]]) -> bool:
        async def main() -> bool:
            self.audience = Audience()
            self.board = Board(self.limits, provenance)
            scheduler = Scheduler(self.limits, self.board.census)
            clock = asyncio.get_running_loop().time
            engine = Engine(self.world.lanes, self.board, scheduler, self.limits, None, [self.audience], clock)
            serving = asyncio.create_task(engine.serve())
            await play(engine)
            engine.stop()
            return await serving

        return virtual_time.run(main())

    def denoised(self, name: str) -> list[DenoiseOrder]:
        return [order for order, _, _ in self.world.logged(DenoiseOrder) if order.session_id == name]


def test_controls_come_one_by_one_and_every_chunk_is_shown_then_durable_then_committed() -> None:
    served = Served(World())

    async def play(engine: Engine) -> None:
        assert engine.offer(played("a")) is None
        for control in (W, A, D):
            await asyncio.sleep(20)
            engine.extend("a", [control])
        engine.finish("a")
        await served.audience.ended.wait()

    assert served.run(play)
    assert served.audience.done == {"a": None}
    assert [order.control for order in served.denoised("a")] == [W, A, D]
    # a chunk is there as soon as its control, its denoise and its decode: nothing else is waited for
    assert served.audience.shown["a"] == [(index, 20 * (index + 1) + 4.0 + 1.5) for index in range(3)]
    assert [order.index for order, _, _ in served.world.logged(WriteOrder)] == [0, 1, 2]
    ((commit, began, _),) = served.world.logged(CommitOrder)
    assert [chunk.staged_key != "" for chunk in commit.chunks] == [True] * 3
    assert commit.spec.controls == (W, A, D)
    assert began == 60 + 4.0 + 1.5 + 0.25
    assert served.board.census.payload_bytes == 0


def test_controls_queued_ahead_overlap_like_a_batch_session() -> None:
    served = Served(World())

    async def play(engine: Engine) -> None:
        engine.offer(played("a", controls=(W, A, D)))
        engine.finish("a")
        await served.audience.ended.wait()

    assert served.run(play)
    assert [now for _, now in served.audience.shown["a"]] == [0.75 + 4.0 * number + 1.5 for number in (1, 2, 3)]


def test_an_engine_that_serves_waits_for_who_may_come() -> None:
    served = Served(World())

    async def play(engine: Engine) -> None:
        await asyncio.sleep(LONG)
        engine.offer(session("batch", 2))
        await served.audience.ended.wait()

    assert served.run(play)
    assert served.audience.done == {"batch": None}


@pytest.mark.parametrize("let_in", [True, False])
def test_a_session_without_a_control_leaves_nothing_behind(let_in: bool) -> None:
    served = Served(World(), Limits(max_sessions=1))

    async def play(engine: Engine) -> None:
        if not let_in:
            engine.offer(played("other", controls=(W,) * 9))
        assert engine.offer(played("a")) == (None if let_in else Wait("sessions", 1))
        engine.finish("a")
        await served.audience.ended.wait()

    served.run(play)
    assert isinstance(served.audience.done["a"], Cancelled)
    assert "a" not in {order.session_id for order, _, _ in served.world.logged(CommitOrder)}


@pytest.mark.parametrize("idle", [False, True])
def test_who_waits_is_told_where_keeps_its_controls_and_comes_in_when_there_is_room(idle: bool) -> None:
    """The same at once and in an engine that has had nothing to do for a while."""
    served = Served(World(), Limits(max_sessions=1, max_queued=1))

    async def play(engine: Engine) -> None:
        if idle:
            await asyncio.sleep(LONG)
        assert engine.offer(played("a", controls=(W,))) is None
        assert engine.offer(played("b", controls=(A,))) == Wait("sessions", 1)
        assert engine.offer(played("c")) == Refusal("queue", 2)
        engine.extend("b", [D])
        engine.finish("b")
        engine.finish("a")
        while len(served.audience.done) < 2:
            served.audience.ended.clear()
            await served.audience.ended.wait()

    assert served.run(play)
    assert served.audience.done == {"a": None, "b": None}
    assert [order.control for order in served.denoised("b")] == [A, D]


def test_who_waits_can_be_called_off() -> None:
    served = Served(World(), Limits(max_sessions=1))

    async def play(engine: Engine) -> None:
        engine.offer(played("a", controls=(W,)))
        engine.offer(played("b", controls=(A,)))
        engine.cancel("b")
        engine.finish("a")
        while len(served.audience.done) < 2:
            served.audience.ended.clear()
            await served.audience.ended.wait()

    assert served.run(play)
    assert isinstance(served.audience.done["b"], Cancelled)
    assert served.denoised("b") == []


def test_a_session_that_lost_its_state_goes_on_with_the_controls_it_was_given() -> None:
    """The decode of chunk 1 finds its latents gone; chunk 0 is durable, and the player presses on meanwhile."""
    lost = iter([True])

    def behaviour(order: Order) -> Any:
        if isinstance(order, DecodeOrder) and order.index == 1 and next(lost, False):
            return StateLost("gone")
        return usual(order)

    world = World(behaviour)
    for lane in world.lanes:
        lane.restores = restored
    served = Served(world)

    async def play(engine: Engine) -> None:
        engine.offer(played("a"))
        engine.extend("a", [W, A])
        await asyncio.sleep(9)
        engine.extend("a", [D])
        engine.finish("a")
        await served.audience.ended.wait()

    assert served.run(play)
    assert served.audience.done == {"a": None}
    assert len(world.logged(RestoreOrder)) == 1
    ((commit, _, _),) = world.logged(CommitOrder)
    assert commit.spec.controls == (W, A, D)
    assert [chunk.index for chunk in commit.chunks] == [0, 1, 2]


def test_stop_leaves_open_sessions_to_the_next_start() -> None:
    served = Served(World())

    async def play(engine: Engine) -> None:
        engine.offer(played("a", controls=(W,)))
        await asyncio.sleep(5)  # denoised, not yet decoded

    assert served.run(play) is False
    assert served.audience.done == {}
    assert [order.index for order, _, _ in served.world.logged(WriteOrder)] == [0], "what is denoised is made durable"


def test_a_service_without_a_lane_for_its_work_says_so_instead_of_waiting_for_ever() -> None:
    served = Served(World(lambda order: LaneLost("gone") if isinstance(order, DenoiseOrder) else usual(order)))

    async def play(engine: Engine) -> None:
        engine.offer(played("a", controls=(W,)))
        await asyncio.sleep(LONG)

    with pytest.raises(RunAborted, match="no lane is left for denoise"):
        served.run(play)
