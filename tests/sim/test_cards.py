"""Simulated lanes that share cards, carry several orders at once, or go on without their cards: by hand."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamecraft_core.base.errors import LaneLost
from gamecraft_core.base.messages import Receipt
from orchestrator.limits import Limits
from orchestrator.simulation.arrivals import at_once, poisson
from orchestrator.simulation.lanes import SimLane
from orchestrator.simulation.simulator import Outcome, Simulation
from orchestrator.simulation.times import Constant, Exponential
from orchestrator.timeline import Timeline
from tests.fakes.sessions import session
from tests.fakes.world import Ledger

TEXT = SimLane("text-0", "text", Constant(0.5))
ENCODE = SimLane("encode-0", "encode", Constant(0.5))
SECONDS = {"denoise": 2.0, "decode": 0.75}
WRITE = SimLane("write-0", "write", Constant(0.125), serial=False, depth=8)


def run(lanes: list[SimLane], sessions: int, chunks: int, loss: float = 0.0) -> tuple[Outcome, list[Receipt], Timeline]:
    ledger, timeline = Ledger(), Timeline()
    simulation = Simulation([TEXT, ENCODE, *lanes], Limits(), listeners=[ledger, timeline], sharing_loss=loss)
    simulation.arrive(at_once(session(f"s{n}", chunks=chunks, prompt=str(n)) for n in range(sessions)))
    outcome = simulation.run()
    assert (outcome.committed, outcome.unfinished) == (sessions, 0)
    return outcome, ledger.receipts, timeline


def spans(receipts: list[Receipt], stage: str) -> list[tuple[float, float]]:
    return [(receipt.started, receipt.ended) for receipt in receipts if receipt.stage == stage]


def test_a_decode_beside_denoise_slows_both_while_they_share() -> None:
    denoise = SimLane("denoise-0", "denoise", Constant(4.0), cards=(0,))
    decode = SimLane("decode-0", "decode", Constant(1.0), cards=(0,))
    _, receipts, _ = run([denoise, decode, WRITE], sessions=1, chunks=3, loss=0.2)
    # Shared, each goes at 0.4: a decode takes 2.5 s, in which the denoise beside it does 1 s of its 4.
    assert spans(receipts, "denoise") == [(0.5, 4.5), (4.5, 10.0), (10.0, 15.5)]
    assert spans(receipts, "decode") == [(4.5, 7.0), (10.0, 12.5), (15.5, 16.5)]


def test_a_group_goes_as_fast_as_its_most_crowded_card() -> None:
    group = SimLane("denoise-0", "denoise", Constant(4.0), cards=(0, 1), sp_degree=2)
    decode = SimLane("decode-0", "decode", Constant(1.0), cards=(1, 2))
    _, receipts, _ = run([group, decode, WRITE], sessions=1, chunks=2)
    assert spans(receipts, "denoise") == [(0.5, 4.5), (4.5, 9.5)]
    assert spans(receipts, "decode") == [(4.5, 6.5), (9.5, 10.5)]


def test_what_follows_a_turn_keeps_nobody_waiting() -> None:
    first = SimLane("denoise-0", "denoise", Constant(1.0), first=Constant(0.5))
    decode = SimLane("decode-0", "decode", Constant(1.0), after=Constant(2.0), cards=(0,))
    outcome, receipts, timeline = run([first, decode, WRITE], sessions=1, chunks=3)
    assert spans(receipts, "denoise") == [(0.5, 1.0), (1.0, 2.0), (4.0, 5.0)], "two undecoded chunks at most"
    assert spans(receipts, "decode") == [(1.0, 4.0), (2.0, 5.0), (5.0, 8.0)], "the second begins as the first encodes"
    assert outcome.makespan == 8.0 + 0.125
    shown = {event["name"]: event["dur"] for event in json.loads(timeline.to_json())["traceEvents"] if "dur" in event}
    assert (shown["decode s0 #0"], shown["encode video s0 #0"]) == (1e6, 2e6), "as of a real decode lane"


def test_a_lane_that_is_not_serial_works_on_all_that_it_holds() -> None:
    lanes = [SimLane("denoise-0", "denoise", Constant(0.25)), SimLane("decode-0", "decode", Constant(0.25))]
    slow = SimLane("write-0", "write", Constant(10.0), serial=False, depth=3)
    _, receipts, _ = run([*lanes, slow], sessions=4, chunks=1)
    writes = spans(receipts, "write")
    assert [ended - started for started, ended in writes] == [10.0] * 4
    most = max(sum(begun <= at < over for begun, over in writes) for at, _ in writes)
    assert most == 3, "its depth"
    assert writes[3][0] == writes[0][1], "the fourth when the first has ended"


def test_a_lost_lane_frees_its_cards() -> None:
    lost = SimLane("denoise-0", "denoise", Constant(8.0), cards=(0,), lost_at=(2.5,))
    other = SimLane("denoise-1", "denoise", Constant(8.0), cards=(0,))
    decode = SimLane("decode-0", "decode", Constant(1.0))
    _, receipts, _ = run([lost, other, decode, WRITE], sessions=1, chunks=1)
    assert spans(receipts, "denoise") == [(2.5, 10.5)], "the lane that took over has the card to itself"
    lanes = [lost, other, decode, WRITE]
    _, receipts, _ = run(lanes, sessions=2, chunks=1)
    # The second session comes in at 1.0; until 2.5 both share. Then the survivor has 7.25 s left, and the other 8.
    assert spans(receipts, "denoise") == [(1.0, 9.75), (9.75, 17.75)]


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=0, max_size=3, unique=True), min_size=2, max_size=6),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.integers(0, 5),
)
def test_cards_never_do_more_than_they_can_and_chance_is_repeated(
    places: list[list[int]], loss: float, seed: int
) -> None:
    lanes = [
        SimLane(
            f"{stage}-{number}",
            "denoise" if stage == "denoise" else "decode",
            Constant(SECONDS[stage]),
            cards=tuple(cards),
            after=Constant(0.5) if stage == "decode" else None,
            between_losses=Exponential(30.0),
            rebuilt_after=Constant(3.0),
        )
        for number, cards in enumerate(places)
        for stage in ("denoise", "decode")
    ]

    def once() -> tuple[Outcome, list[Receipt]]:
        ledger = Ledger()
        simulation = Simulation(
            [TEXT, ENCODE, WRITE, *lanes], Limits(max_attempts=999), seed=seed, listeners=[ledger], sharing_loss=loss
        )
        simulation.arrive(poisson([session(f"s{n}", chunks=3) for n in range(8)], per_second=1.0, seed=seed))
        return simulation.run(), ledger.receipts

    (outcome, receipts), again = once(), once()
    assert again == (outcome, receipts)
    assert (outcome.committed, outcome.unfinished) == (8, 0)
    for card in range(4):
        there = {lane.name: SECONDS[lane.stage] for lane in lanes if card in lane.cards}
        assert sum(there.get(receipt.lane, 0.0) for receipt in receipts) <= outcome.makespan + 1e-6
    for lane in lanes:
        own = sorted((r.started, r.facts.get("decoded", r.ended)) for r in receipts if r.lane == lane.name)
        assert all(ended - begun >= SECONDS[lane.stage] - 1e-6 for begun, ended in own)
        assert all(ended <= begun for (_, ended), (begun, _) in pairwise(own)), "turns are serial"


def test_an_error_at_the_end_of_a_turn_takes_the_lane_and_frees_its_cards() -> None:
    struck: list[str] = []

    def faults(task: object, chance: object) -> LaneLost | None:
        kind = getattr(task, "kind", "")
        if kind in ("denoise", "decode") and kind not in struck:
            struck.append(kind)
            return LaneLost("killed")
        return None

    lanes = [
        SimLane("denoise-0", "denoise", Constant(2.0), cards=(0,), rebuilt_after=Constant(1.0)),
        SimLane("decode-0", "decode", Constant(1.0), cards=(0,), after=Constant(0.5), rebuilt_after=Constant(1.0)),
        WRITE,
    ]
    ledger = Ledger()
    simulation = Simulation([TEXT, ENCODE, *lanes], Limits(), listeners=[ledger], faults=faults)
    simulation.arrive(at_once([session("a", chunks=1)]))
    assert simulation.run().committed == 1
    assert spans(ledger.receipts, "denoise") == [(3.5, 5.5)]
    assert spans(ledger.receipts, "decode") == [pytest.approx((8.0, 9.5))]
