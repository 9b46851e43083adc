"""The simulator: it is the engine without asyncio, it repeats itself, and things go wrong in it as they are told to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamecraft_core.base.errors import BadInput, LaneLost
from gamecraft_core.base.messages import Order
from gamecraft_core.base.spec import SessionSpec
from orchestrator.limits import Limits, TenantLimits
from orchestrator.metrics import Metrics
from orchestrator.ports import Lane, Listener
from orchestrator.shard_book import ShardBook
from orchestrator.simulation.arrivals import at_once, poisson
from orchestrator.simulation.facts import Full
from orchestrator.simulation.lanes import SimLane
from orchestrator.simulation.simulator import Simulation
from orchestrator.simulation.times import Constant, Empirical, Exponential, Lognormal, Times, Uniform
from orchestrator.tasks import Kind, Task
from orchestrator.timeline import Timeline
from tests.fakes.sessions import session
from tests.fakes.world import SECONDS, Ledger, World

WRITES: Mapping[Kind, Times] = {
    "write": Constant(SECONDS["WriteOrder"]),
    "commit": Constant(SECONDS["CommitOrder"]),
    "fail": Constant(SECONDS["FailOrder"]),
    "publish": Constant(SECONDS["PublishOrder"]),
}


def fleet(denoise: Times, decode: Times, groups: tuple[int, ...] = (1,), decoders: int = 1) -> list[SimLane]:
    """What ``World`` has, with these times."""
    return [
        SimLane("text-0", "text", Constant(SECONDS["TextOrder"])),
        SimLane("encode-0", "encode", Constant(SECONDS["EncodeOrder"])),
        *(SimLane(f"denoise-{n}", "denoise", denoise, sp_degree=degree) for n, degree in enumerate(groups)),
        *(SimLane(f"decode-{n}", "decode", decode) for n in range(decoders)),
        SimLane("write-0", "write", WRITES),
    ]


class Heard(Listener):
    """Lanes that came and went."""

    def __init__(self) -> None:
        self.lanes: list[tuple[str, str, float]] = []

    def lane_lost(self, lane: Lane, error: Any, now: float) -> None:
        self.lanes.append(("lost", lane.name, now))

    def lane_back(self, lane: Lane, now: float) -> None:
        self.lanes.append(("back", lane.name, now))

    def lane_left(self, lane: Lane, now: float) -> None:
        self.lanes.append(("left", lane.name, now))


def _always(seconds: float, order: Order) -> float:
    return seconds


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=9),
    st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=4),
    st.integers(1, 3),
    st.sampled_from([0.703125, 2.265625, 4.0]),
    st.sampled_from([0.328125, 1.515625, 5.0]),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
)
def test_it_does_what_the_engine_does(
    lengths: list[int],
    groups: list[int],
    decoders: int,
    denoise: float,
    decode: float,
    most: int,
    live: bool,
    parallel: bool,
) -> None:
    """No two lanes are equally fast, and seconds are sums of powers of two: so no two events come at one moment.

    ``parallel``: as real ones, decoders encode their video beside the next decode and writers work on all they hold.
    """
    rows: list[SessionSpec] = [
        session(f"s{n}", chunks=length, row=n + 1, priority="interactive" if live and n % 3 == 2 else "batch")
        for n, length in enumerate(lengths)
    ]
    limits = Limits(max_sessions=most) if not live else Limits()  # where live ones wait to come in, they come in first
    lanes = fleet(Constant(denoise), Constant(decode), tuple(groups), decoders)
    world = World(groups=tuple(groups), decoders=decoders)
    for number, (lane, fake) in enumerate(zip(lanes, world.lanes, strict=True)):
        assert lane.name == fake.name
        if isinstance(lane.seconds, Constant):
            seconds = lane.seconds.seconds + (2 * number + 1) / 4096
            lanes[number] = replace(lane, seconds=Constant(seconds))
            fake.behaviour = partial(_always, seconds)
        if parallel and lane.stage == "decode":
            fake.after = 0.25 + 1 / 8192
            lanes[number] = replace(lanes[number], after=Constant(fake.after))
        if parallel and lane.stage == "write":
            fake.serial = False
            lanes[number] = replace(lanes[number], serial=False)
    assert world.run(rows, limits)
    ledger = Ledger()
    simulation = Simulation(lanes, limits, listeners=[ledger], records=True, shards=ShardBook(len(rows), 4))
    simulation.arrive(at_once(rows))
    outcome = simulation.run()
    assert outcome.makespan == world.makespan
    assert (outcome.committed, outcome.unfinished) == (len(rows), 0)

    def told(receipts: list[Any]) -> list[Any]:
        return sorted((r.lane, round(r.started, 6), round(r.ended, 6), r.session_id, r.index) for r in receipts)

    assert told(ledger.receipts) == told(world.ledger.receipts)
    assert isinstance(simulation.facts, Full)
    assert [o.session_id for o in simulation.facts.commits] == list(ledger.done)
    took = [chunk.timings["denoise"] for o in simulation.facts.commits for chunk in o.chunks]
    assert all(seconds is not None and denoise < seconds < denoise + 0.01 for seconds in took)


CHANCE = [Uniform(1.0, 3.0), Lognormal(2.0, 0.5), Exponential(2.0), Empirical([1.0, 2.5, 4.0])]


def eventful(seed: int, decode: Times, **options: Any) -> tuple[Simulation, Ledger, Timeline]:
    """Losses, arrivals and times by chance."""
    ledger, timeline = Ledger(), Timeline()
    lanes = fleet(Lognormal(4.0, 0.3), decode, (1, 1, 2), 2)
    lanes += [
        SimLane("denoise-9", "denoise", Uniform(2, 9), between_losses=Exponential(20.0), rebuilt_after=Constant(5))
    ]
    simulation = Simulation(lanes, Limits(max_attempts=99), seed=seed, listeners=[ledger, timeline], **options)
    simulation.arrive(poisson([session(f"s{n}", chunks=1 + n % 5) for n in range(30)], per_second=0.5, seed=seed))
    return simulation, ledger, timeline


@pytest.mark.parametrize("decode", CHANCE, ids=lambda times: type(times).__name__)
def test_a_seed_decides_everything(decode: Times) -> None:
    runs = [eventful(seed, decode) for seed in (1, 1, 2)]
    outcomes = [simulation.run() for simulation, _, _ in runs]
    told = [(timeline.to_json(), ledger.receipts, ledger.lost) for _, ledger, timeline in runs]
    assert outcomes[0] == outcomes[1]
    assert told[0] == told[1]
    assert outcomes[2].makespan != outcomes[0].makespan
    assert outcomes[0].committed == 30
    assert "denoise-9" in runs[0][1].lost


def test_bare_and_full_records_make_no_difference_to_what_happens() -> None:
    bare, full = eventful(3, Constant(1.0)), eventful(3, Constant(1.0), records=True)
    assert bare[0].run() == full[0].run()
    spans = [[(r.lane, r.started, r.ended) for r in ledger.receipts] for _, ledger, _ in (bare, full)]
    assert spans[0] == spans[1]


def test_timeline_and_metrics_are_those_of_a_run() -> None:
    simulation, ledger, timeline = eventful(4, Constant(1.0))
    metrics = Metrics(fleet(Constant(4.0), Constant(1.0)), simulation.scheduler, 0.0, lambda: simulation.now)
    simulation._listeners += (metrics,)
    simulation.run()
    events = json.loads(timeline.to_json())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == len(ledger.receipts)
    assert metrics.registry.get_sample_value("gamecraft_outputs_committed_total") == 30
    assert 0.0 < (timeline.overlap_ratio() or 0.0) <= 1.0


def test_a_lane_is_lost_when_told_and_comes_back() -> None:
    heard = Heard()
    lanes = fleet(Constant(4.0), Constant(1.0))
    lanes[2] = SimLane("denoise-0", "denoise", Constant(4.0), lost_at=(6.0,), rebuilt_after=Constant(10.0))
    simulation = Simulation(lanes, Limits(), listeners=[heard])
    simulation.arrive(at_once([session("a", chunks=2)]))
    outcome = simulation.run()
    assert heard.lanes == [("lost", "denoise-0", 6.0), ("back", "denoise-0", 16.0)]
    # chunk 1, under way since 4.75, begins again at 16, then its decode and the commit
    assert outcome.makespan == 16.0 + 4.0 + 1.0 + SECONDS["CommitOrder"]


def test_what_loses_too_many_lanes_fails_alone_and_what_cannot_go_on_is_named() -> None:
    def faults(task: Task, chance: Any) -> LaneLost | BadInput | None:
        name = task.session.spec.session_id if task.session else ""
        if task.kind == "denoise" and name == "evil":
            return LaneLost("killed")
        return BadInput("no image") if task.kind == "encode" and name == "bad" else None

    lanes = [*fleet(Constant(4.0), Constant(1.0), (1, 1, 1, 1))]
    simulation = Simulation(lanes, Limits(max_attempts=3), faults=faults)
    simulation.arrive(at_once([session("evil"), session("good"), session("bad")]))
    outcome = simulation.run()
    assert (outcome.committed, outcome.failed, outcome.unfinished) == (1, 2, 0)
    alone = Simulation(fleet(Constant(4.0), Constant(1.0)), Limits(), faults=faults)
    alone.arrive(at_once([session("evil")]))
    assert alone.run().stranded.startswith("denoise")


def test_draining_lanes_finish_what_they_hold_and_new_ones_take_over() -> None:
    heard, ledger = Heard(), Ledger()
    simulation = Simulation(fleet(Constant(4.0), Constant(1.0)), Limits(), listeners=[heard, ledger])
    simulation.arrive(at_once([session(f"s{n}", chunks=2) for n in range(3)]))
    simulation.drain("denoise-0", at=5.0)
    simulation.join(SimLane("denoise-new", "denoise", Constant(2.0)), at=30.0)
    outcome = simulation.run()
    old = [r for r in ledger.receipts if r.lane == "denoise-0"]
    assert [r.started for r in old] == [0.75, 4.75, 8.75], "at 5.0 it held two"
    assert heard.lanes == [("left", "denoise-0", 12.75)]
    assert outcome.committed == 3
    assert min(r.started for r in ledger.receipts if r.lane == "denoise-new") == 30.0


def test_who_waits_is_let_in_in_turn_and_who_is_too_many_is_refused() -> None:
    limits = Limits(max_sessions=2, max_queued=3, tenants={"a": TenantLimits(max_sessions=1)})
    ledger = Ledger()
    simulation = Simulation(fleet(Constant(4.0), Constant(1.0)), limits, listeners=[ledger])
    rows = [session(f"a{n}", tenant="a") for n in range(3)] + [session(f"b{n}", tenant="b") for n in range(3)]
    simulation.arrive(at_once(rows))
    simulation.cancel("a2", at=1.0)
    outcome = simulation.run()
    assert (outcome.committed, outcome.cancelled, outcome.refused) == (4, 1, 1)
    assert set(ledger.done) == {"a0", "a1", "b0", "b1"}
