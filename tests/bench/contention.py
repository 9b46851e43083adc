"""Two traces in which there is too little for all, simulated: a small tenant beside a large one, live sessions beside
batch work. The same trace, lanes and seed for every policy, so that nothing but the order differs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from gamecraft_core.base.errors import FramelaneError
from gamecraft_core.base.messages import Receipt, Stage
from gamecraft_core.base.spec import SessionSpec
from orchestrator.limits import Limits
from orchestrator.policy import Policy
from orchestrator.ports import Listener
from orchestrator.simulation.arrivals import Arrival, at_once, poisson
from orchestrator.simulation.lanes import SimLane
from orchestrator.simulation.simulator import Simulation
from orchestrator.simulation.times import Constant, Lognormal, Times
from tests.fakes.sessions import session

#: How many lanes, and their seconds.
Stages = dict[Stage, tuple[int, Times]]

UNBOUNDED = Limits(
    max_sessions=1 << 30, max_undecoded=1 << 30, max_unwritten=1 << 30, max_payload_bytes=1 << 60, max_queued=1 << 30
)

SMALL_SESSIONS, TIMES_AS_MANY, TENANT_CHUNKS = 8, 100, 4
SHARED: Stages = {
    "text": (2, Constant(0.1)),
    "encode": (4, Constant(0.2)),
    "denoise": (16, Lognormal(4.0, 0.1)),
    "decode": (8, Lognormal(1.0, 0.1)),
    "write": (2, Lognormal(0.1, 0.1)),
}

LIVE_SESSIONS, LIVE_CHUNKS, BATCH_CHUNKS, DEMAND = 4, 100, 4, 1.5
CHUNK_S = 33 / 25
DENOISE_S = 1.05
LIVE: Stages = {
    "text": (1, Constant(0.05)),
    "encode": (2, Constant(0.05)),
    "denoise": (8, Lognormal(DENOISE_S, 0.05)),
    "decode": (4, Lognormal(0.25, 0.05)),
    "write": (2, Lognormal(0.03, 0.05)),
}


def fleet(stages: Stages, share: float = 1.0) -> list[SimLane]:
    """``share`` of the lanes of every stage."""
    return [
        SimLane(f"{stage}-{number}", stage, seconds)
        for stage, (many, seconds) in stages.items()
        for number in range(round(many * share))
    ]


class Heard(Listener):
    """When sessions came and ended, and when chunks of live ones were stored."""

    def __init__(self) -> None:
        self.came: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.stored: dict[str, list[float]] = {}

    def admitted(self, spec: SessionSpec, now: float) -> None:
        self.came[spec.session_id] = now

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        if spec is not None and spec.priority == "interactive" and receipt.stage == "write":
            self.stored.setdefault(spec.session_id, []).append(now)

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        self.took[spec.session_id] = now - self.came[spec.session_id]


def small_tenants_mean(*, alone: bool, policy: Policy | None = None) -> float:
    """Mean seconds of the small tenant's sessions, beside the large one or alone on its half of the lanes."""
    small = [session(f"small{n}", chunks=TENANT_CHUNKS, tenant="small") for n in range(SMALL_SESSIONS)]
    many = SMALL_SESSIONS * TIMES_AS_MANY
    large = [session(f"large{n}", chunks=TENANT_CHUNKS, tenant="large") for n in range(many)]
    arrivals = [*([] if alone else at_once(large)), *at_once(small, at=30.0)]
    heard = _simulated(fleet(SHARED, 0.5 if alone else 1.0), arrivals, policy)
    return statistics.fmean(heard.took[spec.session_id] for spec in small)


def deadlines_met(*, alone: bool, policy: Policy | None = None) -> float:
    """Share of the live sessions' chunks, after their first, that were stored before they were due."""
    live = [
        session(f"live{n}", chunks=LIVE_CHUNKS, tenant="player", priority="interactive") for n in range(LIVE_SESSIONS)
    ]
    arrivals: list[Arrival] = [(10.0 + 3.0 * number, spec) for number, spec in enumerate(live)]
    if not alone:
        lanes, _ = LIVE["denoise"]
        a_second = DEMAND * lanes / DENOISE_S / BATCH_CHUNKS
        many = round(a_second * 2 * LIVE_CHUNKS * CHUNK_S)
        arrivals += poisson([session(f"batch{n}", chunks=BATCH_CHUNKS) for n in range(many)], a_second, seed=7)
    heard = _simulated(fleet(LIVE), arrivals, policy)
    met = [good for spec in live for good in _in_time(heard.stored[spec.session_id])]
    return statistics.fmean(met)


def _in_time(stored: Sequence[float]) -> list[bool]:
    """For every chunk but the first: it was there when the one before stops playing, in a player that never waits."""
    return [now <= stored[0] + number * CHUNK_S for number, now in enumerate(stored[1:], start=1)]


def _simulated(lanes: list[SimLane], arrivals: list[Arrival], policy: Policy | None) -> Heard:
    heard = Heard()
    simulation = Simulation(lanes, UNBOUNDED, listeners=[heard], policy=policy, seed=3)
    simulation.arrive(arrivals)
    outcome = simulation.run()
    if outcome.committed != len(arrivals):
        raise RuntimeError(f"not all sessions ended well: {outcome}")
    return heard
