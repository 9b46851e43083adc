"""The planner's pure half: layouts, the simulation against sums by hand, rows and goals."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gamecraft_core.base.errors import UsageError
from gamecraft_core.costs.figure import Figure
from orchestrator.plan.goals import Goal, choose, parse_goal
from orchestrator.plan.layouts import Layout, Needs, layouts, seats
from orchestrator.plan.load import Load, simulate
from orchestrator.plan.predict import Row, Video, lanes_of, percentile, predict, reference

VIDEO = Video(seconds_a_chunk=1.32, price_per_hour=2.0)


@dataclass(frozen=True)
class Chunk:
    seconds: Figure
    apart: float = 0.0


@dataclass(frozen=True)
class Fixed:
    """Costs by hand: a chunk takes ``denoise`` seconds, divided by the degree to the power of ``scaling``."""

    denoise_seconds: float = 10.0
    decode_seconds: float = 2.0
    scaling: float = 1.0
    basis: str = "assumed"

    def text(self, *, host: bool = False, offloaded: bool = False) -> Figure:
        return self._figure(3.0 if host else 1.0)

    def encode(self) -> Figure:
        return self._figure(0.5)

    def decode(self, devices: int = 1, *, continuing: bool = True) -> Figure:
        return self._figure(self.decode_seconds / devices)

    def encode_video(self) -> Figure:
        return self._figure(0.25)

    def write(self) -> Figure:
        return self._figure(0.125)

    def denoise(self, degree: int = 1, *, split: bool = False, continuing: bool = True) -> Chunk:
        whole = self.denoise_seconds * (1.0 if continuing else 0.5)
        return Chunk(self._figure(whole / degree**self.scaling), 0.0)

    def _figure(self, seconds: float) -> Figure:
        return Figure(seconds, "measured" if self.basis == "measured" else "assumed", "by hand")


ONE = Layout(((1, 1),))
APART = Layout(((1, 1),), decode_cards=1)


def test_layouts_use_every_card_once() -> None:
    made = list(layouts(8, 24, guided=False))
    assert len(made) == len(set(made))
    assert {layout.cards for layout in made} == {8}
    assert {degree for layout in made for degree, _ in layout.groups} == {1, 2, 3, 4, 6, 8}
    for layout in made:
        placed = seats(layout)
        ranks = [card for seat in placed if seat.stage == "denoise" for card in seat.cards]
        assert sorted(ranks) == list(range(layout.ranks)), "every rank has a card of its own"
        decoders = [seat for seat in placed if seat.stage == "decode"]
        assert len(decoders) == layout.decode_lanes
        cards = [card for seat in decoders for card in seat.cards]
        assert len(cards) == len(set(cards))
        assert not layout.decode_cards or set(cards) == set(range(layout.ranks, 8))


def test_lanes_lie_where_ray_packs_them() -> None:
    """On the fullest card that has room, as ``tests/bench/plan_on_ray.py`` found them."""

    def lying(layout: Layout) -> dict[str, tuple[int, ...]]:
        return {f"{seat.stage}-{seat.number}": seat.cards for seat in seats(layout) if seat.stage != "denoise"}

    same_group = {"text-0": (0,), "encode-0": (0,), "decode-0": (1,), "decode-1": (2,)}
    assert lying(Layout(((4, 2),))) == same_group
    assert lying(Layout(((1, 3),), decode_cards=1)) == {"text-0": (3,), "encode-0": (3,), "decode-0": (3,)}
    whole = {"text-0": (0,), "encode-0": (0,), "decode-0": (6, 7)}
    assert lying(Layout(((2, 3),), decode_cards=2, spread=2)) == whole, "a decoder of two cards takes all of both"
    assert lying(Layout(((2, 1),), text="host")) == {"text-0": (), "encode-0": (0,), "decode-0": (1,)}


def test_no_card_is_given_more_than_once() -> None:
    for cards in (1, 2, 3, 8):
        for layout in layouts(cards, 24, guided=False):
            shares = layout.shares
            held = [0.0] * cards
            for seat in seats(layout):
                part = shares.rank if seat.stage == "denoise" else getattr(shares, seat.stage)
                for card in seat.cards:
                    held[card] += min(part, 1.0)
            assert max(held) < 1.0001, layout.name


def test_guidance_is_split_only_where_it_acts_and_groups_are_even() -> None:
    assert not any(layout.split for layout in layouts(4, 24, guided=False))
    split = [layout for layout in layouts(4, 24, guided=True) if layout.split]
    assert split
    assert all(degree % 2 == 0 for layout in split for degree, _ in layout.groups)


def test_the_fullest_card_counts_all_that_lies_on_it() -> None:
    needs = Needs(ranks={1: 100, 2: 80}, text=40, encode=7, decode=10, overhead=1)
    assert needs.most(ONE) == 100 + 40 + 7 + 10 + 4
    assert needs.most(Layout(((1, 1),), text="host")) == 100 + 7 + 10 + 3
    assert needs.most(APART) == 101, "text and encode are with decode, 60 together"
    assert needs.most(Layout(((2, 1),))) == 80 + 40 + 7 + 3, "decode is on the other card"
    assert needs.most(Layout(((2, 1),), split=True)) == 100 + 40 + 7 + 3, "a branch of guidance has its rank alone"


def test_one_session_on_cards_of_its_own_is_the_sum_by_hand() -> None:
    outcome = simulate(lanes_of(APART, Fixed()), Load(1, 3, live=True), loss=0.5)
    # Text (1) and encode (0.5) share a card that loses half: 0.5 s of each take 2 s, and text's other half 0.5 s.
    begun = 0.5 * 2 / 0.5 + 0.5
    assert outcome.firsts == [pytest.approx(begun + 5 + 2 + 0.25)]
    assert outcome.latencies == [pytest.approx(12.25)] * 2
    assert outcome.makespan == pytest.approx(begun + 7.25 + 2 * 12.25 + 0.125), "the commit is a write, too"


def test_decode_runs_beside_the_next_denoise_when_controls_are_known() -> None:
    outcome = simulate(lanes_of(APART, Fixed()), Load(1, 3), loss=0.0)
    # 1.5 s shared text and encode, denoises back to back, and after the last its decode, encoding and commit.
    assert outcome.makespan == pytest.approx(1.5 + 5 + 10 + 10 + 2 + 0.25 + 0.125)


def test_stages_on_one_card_share_it_equally() -> None:
    outcome = simulate(lanes_of(ONE, Fixed()), Load(1, 2), loss=0.0)
    # After the first denoise (at 6.5) its decode and the next denoise share: decode ends at 10.5, denoise at 18.5.
    assert outcome.makespan == pytest.approx(18.5 + 2 + 0.25 + 0.125)
    assert outcome.busy["decode"] == pytest.approx(4 + 2)
    assert outcome.alone["decode"] == pytest.approx(4)
    lossy = simulate(lanes_of(ONE, Fixed()), Load(1, 2), loss=0.2)
    assert lossy.makespan > outcome.makespan


def test_sessions_come_one_after_the_other() -> None:
    load = Load(2, 2, live=True, apart=100.0)
    outcome = simulate(lanes_of(APART, Fixed()), load, loss=0.0)
    assert outcome.firsts == [pytest.approx(1.5 + 5 + 2.25)] * 2, "each from when it came"
    assert outcome.makespan == pytest.approx(100 + 1.5 + 5 + 2.25 + 10 + 2.25 + 0.125)


def test_a_simulation_can_be_repeated_on_its_lanes() -> None:
    lanes = lanes_of(Layout(((2, 1), (1, 2))), Fixed())
    first, second = (simulate(lanes, Load(5, 3), loss=0.05) for _ in range(2))
    assert (first.makespan, first.latencies) == (second.makespan, second.latencies)
    assert len(first.firsts) == 5
    assert len(first.latencies) == 10


def row(layout: Layout, costs: Fixed | None = None, sessions: int = 1) -> Row:
    return predict(layout, costs or Fixed(), Load(32, 4), Load(sessions, 4, live=True), VIDEO, 0.05, memory=0)


def test_more_cards_never_make_fewer_chunks() -> None:
    made = [row(Layout(((1, count),))).chunks_per_hour for count in (1, 2, 4, 8)]
    assert made == sorted(made)
    best = [max(row(layout).chunks_per_hour for layout in layouts(cards, 24, guided=False)) for cards in (1, 2, 3, 4)]
    assert best == sorted(best)


def test_figures_follow_their_costs() -> None:
    cheap, dear = row(APART), row(APART, Fixed(denoise_seconds=20.0))
    assert dear.chunks_per_hour < cheap.chunks_per_hour
    assert dear.latency_p50 > cheap.latency_p50
    assert cheap.price_per_video_second == pytest.approx(cheap.card_seconds_per_video_second * 2.0 / 3600)
    assert cheap.card_seconds_per_video_second == pytest.approx(2 * 3600 / cheap.chunks_per_hour / 1.32)
    assert (cheap.basis, row(APART, Fixed(basis="measured")).basis) == ("assumed", "measured")


def test_the_reference_does_one_stage_after_the_other() -> None:
    base = reference(4, Fixed(), Load(1, 2, live=True), VIDEO, memory=0, offloaded=False)
    assert base.latency_p50 == pytest.approx(1 + 10 / 4 + 2 + 0.25)
    assert base.first_chunk == pytest.approx(0.5 + 1 + 5 / 4 + 2 + 0.25)
    assert base.chunks_per_hour == pytest.approx(3600 / ((5.75 + 5.0) / 2))
    turns = reference(4, Fixed(), Load(3, 2, live=True), VIDEO, memory=0, offloaded=False)
    assert turns.latency_p95 == pytest.approx(3 * 5.75)
    assert turns.chunks_per_hour == base.chunks_per_hour


def test_what_bounds_a_row_is_its_busiest_stage() -> None:
    assert row(APART).bound.startswith("denoise")
    assert row(APART, Fixed(decode_seconds=30.0)).bound.startswith("decode")


def test_goals_pick_what_they_say() -> None:
    wide, deep = row(Layout(((1, 4),)), Fixed(scaling=0.8)), row(Layout(((4, 1),)), Fixed(scaling=0.8))
    assert wide.chunks_per_hour > deep.chunks_per_hour
    assert wide.latency_p50 > deep.latency_p50
    assert choose(Goal("throughput"), [deep, wide]).winner is wide
    assert choose(Goal("latency"), [wide, deep]).winner is deep
    between = (wide.latency_p95 + deep.latency_p95) / 2
    assert choose(Goal("sessions", 1, between), [wide, deep]).winner is deep
    assert choose(Goal("sessions", 1, 1000.0), [deep, wide]).winner is wide
    missed = choose(Goal("sessions", 1, 0.001), [wide, deep])
    assert (missed.winner, missed.met) == (deep, False)


def test_more_players_wait_longer() -> None:
    waits = [row(Layout(((2, 1),)), sessions=count).latency_p95 for count in (1, 2, 4)]
    assert waits == sorted(waits)
    assert waits[-1] > 2 * waits[0]


def test_goals_are_read_and_mistakes_are_named() -> None:
    assert parse_goal("sessions=4@30") == parse_goal("sessions=4@30.0s") == Goal("sessions", 4, 30.0)
    for wrong, meant in (("thruput", "throughput"), ("latancy", "latency"), ("sessions=0@3", "sessions=4@30")):
        with pytest.raises(UsageError, match=meant) as caught:
            parse_goal(wrong)
        assert caught.value.field == "--goal"


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert [percentile([4.0, 1.0, 3.0, 2.0], share) for share in (0.5, 0.95, 0.25)] == [2.0, 4.0, 1.0]
