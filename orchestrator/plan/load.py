"""What a plan's lanes are put under, and what becomes of it: the production scheduler's own simulation, measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gamecraft_core.base.messages import Receipt
from gamecraft_core.base.spec import ActionControl, Layout, Priority, SessionSpec, Start, StartKind
from orchestrator.limits import Limits
from orchestrator.ports import Listener
from orchestrator.simulation.lanes import SimLane
from orchestrator.simulation.simulator import Simulation
from orchestrator.simulation.times import Constant


@dataclass(frozen=True, slots=True)
class Load:
    """``sessions`` of ``chunks`` each, one every ``apart`` seconds (0: all at the start), each with its own prompt.

    ``live``: somebody waits for each chunk. Where sessions are ``played``, too, the next control is given when the
    picture of the one before is there, so that a session has one chunk under way; otherwise decode(n) runs beside
    denoise(n+1).
    """

    sessions: int
    chunks: int
    live: bool = False
    apart: float = 0.0
    played: bool = True
    start: StartKind = "image"
    layout: Layout = "tiled"

    @property
    def opening(self) -> int:
        """The first chunk that settles any pixels."""
        return 1 if self.layout == "inverted" and self.chunks > 1 else 0

    @property
    def limits(self) -> Limits:
        under_way = 1 if self.live and self.played else 2
        return Limits(max_sessions=self.sessions, max_undecoded_per_session=under_way)


@dataclass(slots=True)
class Outcome(Listener):
    """What a load took. Latency is from a chunk's release to its decoded fragment, after the first with any pixels.

    ``busy`` counts lane-seconds in turns by stage, ``alone`` what the same would have been on cards of their own.
    """

    lanes: Mapping[str, SimLane]
    opening: int = 0
    makespan: float = 0.0
    chunks: int = 0
    firsts: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    busy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    alone: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _came: dict[str, float] = field(default_factory=dict)
    _released: dict[tuple[str, int], float] = field(default_factory=dict)

    def admitted(self, spec: SessionSpec, now: float) -> None:
        self._came[spec.session_id] = now

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        self.busy[receipt.stage] += receipt.facts.get("decoded", receipt.ended) - receipt.started
        self.alone[receipt.stage] += nominal(self.lanes[receipt.lane], receipt.index)
        if receipt.stage == "denoise":
            self._released[receipt.session_id, receipt.index] = ready_at
        elif receipt.stage == "decode":
            released = self._released.pop((receipt.session_id, receipt.index))
            if receipt.index > self.opening:
                self.latencies.append(now - released)
            elif receipt.index == self.opening:
                self.firsts.append(now - self._came[receipt.session_id])


def simulate(lanes: Sequence[SimLane], load: Load, loss: float) -> Outcome:
    """Run ``load`` to its end; ``loss`` of a card is lost while several share it."""
    heard = Outcome({lane.name: lane for lane in lanes}, load.opening)
    simulation = Simulation(lanes, load.limits, listeners=[heard], sharing_loss=loss)
    simulation.arrive((number * load.apart, _session(number, load)) for number in range(load.sessions))
    outcome = simulation.run()
    assert outcome.committed == load.sessions, outcome.stranded
    heard.makespan, heard.chunks = outcome.makespan, load.sessions * load.chunks
    return heard


def nominal(lane: SimLane, index: int) -> float:
    """Seconds of a turn for chunk ``index`` on cards of its own: planned lanes take constant times."""
    times = lane.first if lane.first is not None and not index else lane.seconds
    assert isinstance(times, Constant)
    return times.seconds


def _session(number: int, load: Load) -> SessionSpec:
    priority: Priority = "interactive" if load.live else "batch"
    return SessionSpec(
        session_id=f"s{number}",
        preset="planned",
        start=Start(load.start, ""),
        layout=load.layout,
        controls=(ActionControl("w", 0.0),) * load.chunks,
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
