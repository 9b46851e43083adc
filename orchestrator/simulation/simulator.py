"""The real board and scheduler on simulated lanes under a clock that jumps from event to event.

Deterministic: one source of chance, seeded; events of one moment are settled in the order in which they were made, and
then all that may start is started, as the engine does. Listeners hear what they hear in a run, so the timeline and the
metrics of a simulation are those that the run would have. It knows no asyncio: that is what its speed comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random

from gamecraft_core.base.errors import Cancelled, FramelaneError, LaneLost, Poisoned
from gamecraft_core.base.messages import Provenance, Receipt
from gamecraft_core.base.spec import SessionSpec
from orchestrator.admission import Admissions, Refusal
from orchestrator.board import Board, ProvenanceOf
from orchestrator.collecting import rare_collections
from orchestrator.demand import Pace
from orchestrator.limits import Limits
from orchestrator.policy import Policy
from orchestrator.ports import Listener
from orchestrator.scheduler import Scheduler
from orchestrator.shard_book import Publication, ShardBook
from orchestrator.simulation.arrivals import Arrival
from orchestrator.simulation.cards import Cards, Turn, moment
from orchestrator.simulation.facts import Brief, Facts, Full
from orchestrator.simulation.lanes import Server, SimLane
from orchestrator.simulation.scaling import Growth, Scaling
from orchestrator.tasks import Kind, Task

#: The error that a task meets when its time is up, if any: a LaneLost takes the lane with it.
Faults = Callable[[Task, Random], FramelaneError | None]


@dataclass(slots=True)
class Outcome:
    """What a simulation came to. ``decisions`` counts dispatches; ``stranded`` says what the unfinished waited for."""

    makespan: float = 0.0
    decisions: int = 0
    committed: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    unfinished: int = 0
    stranded: str = ""


class Simulation:
    """One run. Say what comes and happens (``arrive``, ``cancel``, ``drain``, ``join``, ``grow``), then ``run``."""

    def __init__(
        self,
        lanes: Iterable[SimLane],
        limits: Limits,
        *,
        seed: int = 0,
        listeners: Sequence[Listener] = (),
        policy: Policy | None = None,
        allow_sp_moves: bool = False,
        records: bool = False,
        payload_bytes: Mapping[Kind, int] | None = None,
        faults: Faults | None = None,
        shards: ShardBook | None = None,
        provenance: ProvenanceOf | None = None,
        sharing_loss: float = 0.0,
    ) -> None:
        """``records``: build every order and keep the commits (``facts``), as slow as that is.

        ``sharing_loss``: the part of a card that is lost while several orders share it.
        """
        self.board = Board(limits, provenance or _simulated, allow_sp_moves=allow_sp_moves, policy=policy)
        self.scheduler = Scheduler(limits, self.board.census)
        self.admissions = Admissions(limits, self.board.census)
        self.facts: Facts = (Full(self.board, payload_bytes or {})) if records else Brief(payload_bytes or {})
        self.outcome = Outcome()
        self.now = 0.0
        self.ailing: list[SimLane] = []
        self._limits = limits
        self.chance = Random(seed)
        self._listeners = list(listeners)
        self._faults = faults
        self._shards = shards
        self._servers: dict[str, Server] = {}
        self._cards = Cards(sharing_loss)
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._made = 0
        for lane in lanes:
            self._joined(lane)

    def arrive(self, arrivals: Iterable[Arrival]) -> None:
        for at, spec in sorted(arrivals, key=lambda arrival: arrival[0]):
            self.at(at, self._arrived, spec)

    def cancel(self, session_id: str, at: float) -> None:
        self.at(at, self._cancelled, session_id)

    def join(self, lane: SimLane, at: float) -> None:
        self.at(at, self._came, lane)

    def grow(self, growths: Iterable[Growth], pace: Pace) -> None:
        """From now on lanes come and go as the work wants; how far, ``growths`` say."""
        self._listeners.append(Scaling(self, growths, pace))

    def drain(self, name: str, at: float) -> None:
        """Lane ``name`` takes no more orders from then on, and leaves when it is empty."""
        self.at(at, self._drained, name)

    def run(self, until: float = float("inf")) -> Outcome:
        """To the end: nothing happens any more, or ``until`` has come."""
        with rare_collections():
            self._loop(until)
        outcome = self.outcome
        outcome.unfinished = self.board.census.sessions + len(self.admissions)
        outcome.stranded = self.scheduler.stranded() if outcome.unfinished else ""
        return outcome

    def _loop(self, until: float) -> None:
        events = self._events
        self._dispatch()
        while events and events[0][0] <= until:
            self.now = now = events[0][0]
            while events and events[0][0] == now:
                _, _, happen, about = heappop(events)
                happen(*about)
            if self.admissions:
                self._let_in()
            self._dispatch()

    def at(self, when: float, happen: Callable[..., None], *about: object) -> None:
        self._made += 1
        heappush(self._events, (when, self._made, happen, about))

    def _dispatch(self) -> None:
        for task, lane in self.scheduler.step():
            self.outcome.decisions += 1
            server = self._servers[lane.name]
            if server.running is None:
                self._begin(server, task)
            else:
                server.queue.append(task)
        if self._cards.changed:
            for ends, turn in self._cards.reckon(self.now):
                self.at(ends, self._turned, turn, turn.version)

    def _begin(self, server: Server, task: Task) -> None:
        if not server.plain:
            self._take_turn(server, task)
            return
        server.running = task
        self._made += 1
        ends = self.now + server.draw[task.kind](self.chance)
        heappush(self._events, (ends, self._made, self._ended, (server, task, server.life, self.now)))

    def _take_turn(self, server: Server, task: Task) -> None:
        if server.lane.serial:
            server.running = task
        else:
            server.beside.append(task)
        turn = Turn(server, task, self.now, server.seconds(task, self.chance))
        server.turns.append(turn)
        self._cards.enter(turn)

    def _turned(self, turn: Turn, version: int) -> None:
        """A turn is over, if it is still the one meant: its cards are free, and often so is its lane."""
        if version != turn.version:
            return
        server, task, after = turn.server, turn.task, turn.server.lane.after
        server.turns.remove(turn)
        self._cards.leave(turn)
        if after is None:
            self._ended(server, task, server.life, turn.began)
            return
        ends = moment(self.now + after.draw(self.chance))
        self.at(ends, self._ended, server, task, server.life, turn.began, self.now)
        if server.running is task:
            server.beside.append(task)
            self._next(server)

    def _next(self, server: Server) -> None:
        server.running = None
        if server.queue:
            self._begin(server, server.queue.popleft())

    def _ended(self, server: Server, task: Task, life: int, started: float, decoded: float | None = None) -> None:
        """``decoded``: when the cards were free, where that was earlier."""
        if life != server.life:
            return
        error = self._faults(task, self.chance) if self._faults else None
        if isinstance(error, LaneLost):
            self._lost(server, error)
            return
        lane, now = server.lane, self.now
        self.outcome.makespan = now
        if server.running is task:
            self._next(server)
        else:
            server.beside.remove(task)
        if self.scheduler.ended(task, lane, succeeded=error is None):
            self._left(server)
        if error is not None:
            self._fail(task, error)
            return
        session = task.session
        who = session.spec.session_id if session else task.order.session_id if task.order else ""
        superseded = task.dead
        facts = self.facts.of(task, lane.sp_degree)
        if decoded is not None:
            facts = {**facts, "decoded": decoded}
        receipt = Receipt(
            stage=lane.stage, session_id=who, index=task.index, lane=lane.name, started=started, ended=now, facts=facts
        )
        self.scheduler.push(self.board.settle(task, receipt, task, lane.sp_degree, now))
        for listener in self._listeners:
            listener.settled(session.spec if session else None, receipt, task.ready_at, now)
        if session is not None and not superseded and task.kind in ("commit", "fail"):
            self._finished(session.spec, session.error)

    def _fail(self, task: Task, error: FramelaneError) -> None:
        if not task.dead and task.is_sessions and task.session is not None:
            self.scheduler.forget(task.session)
            self.scheduler.push(self.board.fail(task, error, self.now))

    def _finished(self, spec: SessionSpec, error: FramelaneError | None) -> None:
        if isinstance(error, Cancelled):
            self.outcome.cancelled += 1
        elif error is not None:
            self.outcome.failed += 1
        else:
            self.outcome.committed += 1
        self.admissions.left(spec.tenant)
        if self._shards is not None:
            book, row = self._shards, spec.row
            self._publish(book.failed(row) if error else book.committed(row, spec.session_id, True))
        for listener in self._listeners:
            listener.finished(spec, error, self.now)

    def _publish(self, publication: Publication | None) -> None:
        if publication is not None:
            self.scheduler.push([publication.task(self.now)])

    def _arrived(self, spec: SessionSpec) -> None:
        answer = self.admissions.offer(spec)
        if answer is None:
            self._admit(spec)
        elif isinstance(answer, Refusal):
            self.outcome.refused += 1

    def _let_in(self) -> None:
        while (spec := self.admissions.next()) is not None:
            self._admit(spec)

    def _admit(self, spec: SessionSpec) -> None:
        self.scheduler.push(self.board.admit(spec, self.scheduler.newcomer(spec), self.now))
        for listener in self._listeners:
            listener.admitted(spec, self.now)

    def _cancelled(self, session_id: str) -> None:
        if self.admissions.withdraw(session_id):
            self.outcome.cancelled += 1
            return
        session = self.board.active.get(session_id)
        if session is None or session.state != "active":
            return
        self.scheduler.forget(session)
        self.scheduler.push(self.board.cancel(session, self.now))
        self._finished(session.spec, Cancelled("called off"))

    @property
    def goes_on(self) -> bool:
        """Something is still to happen."""
        return bool(self._events)

    def _came(self, lane: SimLane) -> None:
        self._joined(lane)
        for listener in self._listeners:
            listener.lane_joined(lane, self.now)

    def _joined(self, lane: SimLane) -> None:
        server = self._servers.get(lane.name)
        if server is None or server.lane is not lane:
            server = self._servers[lane.name] = Server(lane)
        self.scheduler.add_lane(lane)
        for at in lane.lost_at:
            if at > self.now:
                self.at(at, self._broke, server, server.life)
        if lane.between_losses is not None:
            self.at(self.now + lane.between_losses.draw(self.chance), self._broke, server, server.life)

    def _drained(self, name: str) -> None:
        server = self._servers.get(name)
        if server is not None and self.scheduler.drain_lane(server.lane):
            self._left(server)

    def _left(self, server: Server) -> None:
        server.life += 1
        for listener in self._listeners:
            listener.lane_left(server.lane, self.now)

    def _broke(self, server: Server, life: int) -> None:
        if life == server.life and (self.board.census.sessions or self.admissions):
            self._lost(server, LaneLost("a simulated loss"))

    def _lost(self, server: Server, error: LaneLost) -> None:
        """As in the engine: the order under way is charged, all go elsewhere, and the lane is back after a time."""
        lane = server.lane
        leaving = self.scheduler.draining(lane)
        for suspect in self.scheduler.remove_lane(lane) or ():
            suspect.suspect = True
        for listener in self._listeners:
            listener.lane_lost(lane, error, self.now)
        for turn in server.turns:
            self._cards.leave(turn)
        for task in server.stop():
            self.scheduler.ended(task, lane, succeeded=False)
            blamed, task.suspect = task.suspect, False
            if task.dead:
                continue
            task.losses["were lost"] = task.losses.get("were lost", 0) + blamed
            if task.losses["were lost"] < self._limits.max_attempts or not task.is_sessions:
                self.scheduler.push([task])
            else:
                self._fail(task, Poisoned(f"{task.losses['were lost']} lanes were lost while they ran {task.kind}"))
        if leaving:
            self._left(server)
        elif lane.rebuilt_after is not None:
            self.ailing.append(lane)
            self.at(self.now + lane.rebuilt_after.draw(self.chance), self._back, lane)

    def _back(self, lane: SimLane) -> None:
        self.ailing.remove(lane)
        self._joined(lane)
        for listener in self._listeners:
            listener.lane_back(lane, self.now)


def _simulated(spec: SessionSpec, sp_degree: int) -> Provenance:
    return Provenance(
        preset=spec.preset,
        weights_fingerprint="simulated",
        code_version="simulated",
        steps=spec.steps,
        guidance=spec.guidance,
        shift=spec.shift,
        sp_degree=sp_degree,
        hardware="simulated",
    )
