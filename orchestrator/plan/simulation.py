"""A plan's run in virtual time: the real board and scheduler over lanes that share cards.

Exact for the model stated here: stages on one card share it equally and lose ``loss`` of it while they do; a group
goes as fast as its slowest card; what a lane does after its turn (video encoding, storing) needs no card.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

from gamecraft_core.base.messages import Order, Provenance, Receipt, Stage, WriteOrder
from gamecraft_core.base.spec import ActionControl, Priority, SessionSpec, Start
from orchestrator.board import Board
from orchestrator.limits import Limits
from orchestrator.ports import Ref
from orchestrator.scheduler import Scheduler
from orchestrator.tasks import Task

#: Moments closer than this are one.
_INSTANT = 1e-9

#: Seconds of an order with the lane's cards to itself, and after them without.
Seconds = Callable[[Order], tuple[float, float]]


@dataclass(eq=False)
class PlannedLane:
    """A lane as the scheduler sees it, and what the simulation knows of it."""

    name: str
    stage: Stage
    seconds: Seconds
    cards: tuple[int, ...] = ()
    sp_degree: int = 1
    depth: int = 2
    serial: bool = True
    preset: str | None = None
    queue: deque[Task] = field(default_factory=deque)
    turns: list[_Turn] = field(default_factory=list)

    async def run(self, order: Order, payloads: tuple[Ref, ...]) -> tuple[Receipt, Ref]:
        raise NotImplementedError("a planned lane's orders are carried out by the simulation")


@dataclass(eq=False, slots=True)
class _Turn:
    lane: PlannedLane
    task: Task
    began: float
    left: float
    after: float
    alone: float


@dataclass(slots=True)
class Outcome:
    """What a load took. Latency is from a chunk's release to its decoded fragment, of chunks that continue.

    ``busy`` counts lane-seconds in turns by stage, ``alone`` what the same would have been on cards of their own.
    """

    makespan: float = 0.0
    chunks: int = 0
    firsts: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    busy: dict[str, float] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """``sessions`` of ``chunks`` each, one every ``apart`` seconds (0: all at the start), each with its own prompt.

    ``live``: a player gives the next control when the picture of the one before is there, so that a session has one
    chunk under way; otherwise all controls are known and decode(n) runs beside denoise(n+1).
    """

    sessions: int
    chunks: int
    live: bool = False
    apart: float = 0.0


def simulate(lanes: Sequence[PlannedLane], load: Load, loss: float) -> Outcome:
    """Run ``load`` to its end."""
    run = _Run(load, loss)
    for lane in lanes:
        lane.queue.clear()
        lane.turns.clear()
        run.scheduler.add_lane(lane)
    while run.board.active or run.to_come:
        run.admit()
        run.dispatch(lanes)
        run.advance()
    run.outcome.makespan = run.now
    return run.outcome


class _Run:
    """One simulation: ``running`` turns use cards or wait in no queue, ``ending`` ones need no card any more."""

    def __init__(self, load: Load, loss: float) -> None:
        limits = Limits(max_sessions=load.sessions, max_undecoded_per_session=1 if load.live else 2)
        self.board = Board(limits, _provenance)
        self.scheduler = Scheduler(limits, self.board.census)
        self.outcome = Outcome(chunks=load.sessions * load.chunks)
        self.now = 0.0
        priority: Priority = "interactive" if load.live else "batch"
        self.to_come = deque(
            (number * load.apart, _session(number, load.chunks, priority)) for number in range(load.sessions)
        )
        self._loss = loss
        self._running: list[_Turn] = []
        self._ending: list[_Turn] = []
        self._came: dict[str, float] = {}
        self._released: dict[tuple[str, int], float] = {}

    def admit(self) -> None:
        while self.to_come and self.to_come[0][0] <= self.now + _INSTANT:
            came, spec = self.to_come.popleft()
            self._came[spec.session_id] = came
            self.scheduler.push(self.board.admit(spec, self.scheduler.newcomer(spec), self.now))

    def dispatch(self, lanes: Sequence[PlannedLane]) -> None:
        by_name = {lane.name: lane for lane in lanes}
        for dispatch in self.scheduler.step():
            by_name[dispatch.lane.name].queue.append(dispatch.task)
        for lane in lanes:
            while lane.queue and not (lane.serial and lane.turns):
                task = lane.queue.popleft()
                task.order, task.payloads = self.board.order(task)
                on_cards, after = lane.seconds(task.order)
                turn = _Turn(lane, task, self.now, on_cards, after, on_cards)
                lane.turns.append(turn)
                self._running.append(turn)

    def advance(self) -> None:
        """Go on to the next moment: a session comes, or a turn or what follows it ends. Settle all that ends."""
        shares = _shares(self._running, self._loss)
        due = [turn.left / share for turn, share in zip(self._running, shares, strict=True)]
        moments = [turn.after for turn in self._ending] + [came for came, _ in itertools.islice(self.to_come, 1)]
        step = min([*due, *(moment - self.now for moment in moments)])
        self.now += step
        done = []
        for turn, share, wait in zip(self._running, shares, due, strict=True):
            turn.left -= step * share
            if wait <= step + _INSTANT:
                done.append(turn)
        for turn in done:
            self._leave(turn)
        for turn in [turn for turn in self._ending if turn.after <= self.now + _INSTANT]:
            self._ending.remove(turn)
            self._settle(turn)

    def _leave(self, turn: _Turn) -> None:
        """``turn`` gives its lane and cards free."""
        self._running.remove(turn)
        turn.lane.turns.remove(turn)
        outcome, stage = self.outcome, turn.lane.stage
        outcome.busy[stage] = outcome.busy.get(stage, 0.0) + self.now - turn.began
        outcome.alone[stage] = outcome.alone.get(stage, 0.0) + turn.alone
        turn.after += self.now
        self._ending.append(turn)

    def _settle(self, turn: _Turn) -> None:
        task, lane, session = turn.task, turn.lane, turn.task.session
        assert session is not None
        self.scheduler.ended(task, lane, succeeded=True)
        key = (session.spec.session_id, task.index)
        if task.kind == "denoise":
            self._released[key] = task.ready_at
        elif task.kind == "decode" and task.index == 0:
            self.outcome.firsts.append(self.now - self._came[session.spec.session_id])
        elif task.kind == "decode":
            self.outcome.latencies.append(self.now - self._released.pop(key))
        receipt = Receipt(
            stage=lane.stage,
            session_id=session.spec.session_id,
            index=task.index,
            lane=lane.name,
            started=turn.began,
            ended=self.now,
            facts=_facts(task),
        )
        self.scheduler.push(self.board.settle(task, receipt, object(), lane.sp_degree, self.now))


def _shares(running: Sequence[_Turn], loss: float) -> list[float]:
    """How fast each turn goes: 1 on cards of its own."""
    crowd: dict[int, int] = {}
    for turn in running:
        for card in turn.lane.cards:
            crowd[card] = crowd.get(card, 0) + 1
    crowds = (max((crowd[card] for card in turn.lane.cards), default=1) for turn in running)
    return [1.0 if count == 1 else (1.0 - loss) / count for count in crowds]


def _facts(task: Task) -> dict[str, object]:
    if isinstance(task.order, WriteOrder):
        record = task.order.record
        return {"record": {each.name: getattr(record, each.name) for each in fields(record)}}
    return {"payload_bytes": 0, "latents_sha256": ""}


def _session(number: int, chunks: int, priority: Priority) -> SessionSpec:
    return SessionSpec(
        session_id=f"s{number}",
        preset="planned",
        start=Start("image", ""),
        controls=(ActionControl("w", 0.0),) * chunks,
        prompt=str(number),
        negative_prompt="",
        seed=0,
        steps=1,
        guidance=1.0,
        shift=1.0,
        height=16,
        width=16,
        priority=priority,
    )


def _provenance(spec: SessionSpec, sp_degree: int) -> Provenance:
    return Provenance(
        preset=spec.preset,
        weights_fingerprint="",
        code_version="",
        steps=spec.steps,
        guidance=spec.guidance,
        shift=spec.shift,
        sp_degree=sp_degree,
        hardware="",
    )
