"""The scheduler: what a decision costs, what an idle session holds, who gets what when there is little; and on Ray, how
near a run comes to what no schedule can beat (``sched_on_ray``), and to what the planner predicts (``plan_on_ray``).

The rest is simulated: the real board and scheduler on simulated lanes. Costs are process time, on one core; a decision
is one dispatch with its settling. The figures of fairness are those of simulated clocks, the same anywhere.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc

from gamecraft_core.base.spec import SessionSpec
from orchestrator.policy import FirstCome
from orchestrator.simulation.arrivals import at_once
from orchestrator.simulation.simulator import Simulation
from orchestrator.simulation.times import Constant, Lognormal
from tests.bench import plan_on_ray, sched_on_ray
from tests.bench.contention import UNBOUNDED, Stages, deadlines_met, fleet, small_tenants_mean
from tests.bench.harness import Bench
from tests.fakes.sessions import session

GOAL_DECISIONS = 50_000.0
GOAL_RATIO = 2.0
GOAL_IDLE_KIB = 8.0
GOAL_SMALL_TENANT = 1.5
GOAL_DEADLINES = 0.99

MANY, FEW = 10_000, 100
CHUNKS = 8
SAMPLES = 3

#: 128 lanes; denoise is what there is too little of, as in life.
LANES: Stages = {
    "text": (2, Constant(0.1)),
    "encode": (4, Constant(0.2)),
    "denoise": (92, Lognormal(4.0, 0.1)),
    "decode": (24, Lognormal(0.9, 0.1)),
    "write": (6, Lognormal(0.1, 0.1)),
}

#: Seconds of simulated time at which all of MANY sessions are encoded and have about half of their chunks.
HALF_WAY = 1000.0


def crowd(sessions: int, chunks: int) -> list[SessionSpec]:
    """Sessions of 20 tenants with a few prompts."""
    return [
        session(f"s{n}", chunks=chunks, row=n + 1, tenant=f"tenant-{n % 20}", prompt=f"prompt {n % 50}")
        for n in range(sessions)
    ]


def seconds_a_decision(sessions: int, chunks: int) -> float:
    """Process time of a whole simulation by its dispatches."""
    simulation = Simulation(fleet(LANES), UNBOUNDED)
    simulation.arrive(at_once(crowd(sessions, chunks)))
    gc.collect()
    gc.freeze()  # what the interpreter and the benchmark hold is no cost of a decision
    began = time.process_time()
    outcome = simulation.run()
    took = time.process_time() - began
    gc.unfreeze()
    if outcome.committed != sessions:
        raise RuntimeError(f"not all sessions were committed: {outcome}")
    return took / outcome.decisions


def idle_bytes(sessions: int, chunks: int, until: float) -> float:
    """Bytes that a session under way holds at ``until``, its request and the records of its chunks among them."""
    gc.collect()
    tracemalloc.start()
    simulation = Simulation(fleet(LANES), UNBOUNDED, records=True)
    simulation.arrive(at_once(crowd(sessions, chunks)))
    simulation.run(until=until)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if simulation.board.census.sessions != sessions:
        raise RuntimeError("some sessions have ended already, or are not under way yet")
    return held / sessions


def main() -> int:
    bench = Bench("sched", {"sessions": MANY, "lanes": sum(many for many, _ in LANES.values())})
    pairs = [(seconds_a_decision(MANY, CHUNKS), seconds_a_decision(FEW, 100)) for _ in range(SAMPLES)]
    bench.figure("decisions_per_second", [1 / many for many, _ in pairs], "1/s", goal=GOAL_DECISIONS, better="higher")
    bench.figure("decision_cost_10000_to_100_sessions", [many / few for many, few in pairs], "x", goal=GOAL_RATIO)
    bench.figure("idle_session_memory", idle_bytes(MANY, CHUNKS, HALF_WAY) / 1024, "KiB", goal=GOAL_IDLE_KIB)
    alone = small_tenants_mean(alone=True)
    beside = small_tenants_mean(alone=False) / alone
    bench.figure("small_tenant_beside_a_large_one", beside, "x", goal=GOAL_SMALL_TENANT)
    bench.figure("the_same_first_come", small_tenants_mean(alone=False, policy=FirstCome()) / alone, "x")
    bench.figure("deadlines_met_alone", deadlines_met(alone=True), "1", goal=1.0, better="higher")
    bench.figure("deadlines_met_beside_batch", deadlines_met(alone=False), "1", goal=GOAL_DEADLINES, better="higher")
    bench.figure("the_same_deadlines_first_come", deadlines_met(alone=False, policy=FirstCome()), "1", better="higher")
    sched_on_ray.figures(bench)
    plan_on_ray.figures(bench)
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
