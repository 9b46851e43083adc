"""Ways to cut one node into lanes, and which process of each lies on which card. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gamecraft_core.base.messages import Stage

TextPlace = Literal["card", "host"]


class Shares(NamedTuple):
    """Parts of a card that a process reserves; from 1 on, whole cards. Who shares a card with a rank gets the rest."""

    rank: float
    decode: float
    text: float
    encode: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Denoise ``groups`` as (degree, how many), the largest first, and where the other roles are.

    ``decode_cards`` 0: decode beside denoise; else so many cards of its own, ``spread`` to a lane.
    """

    groups: tuple[tuple[int, int], ...]
    split: bool = False
    decode_cards: int = 0
    spread: int = 1
    text: TextPlace = "card"

    @property
    def ranks(self) -> int:
        return sum(degree * count for degree, count in self.groups)

    @property
    def cards(self) -> int:
        return self.ranks + self.decode_cards

    @property
    def lanes(self) -> int:
        """Denoise lanes."""
        return sum(count for _, count in self.groups)

    @property
    def decode_lanes(self) -> int:
        """Beside denoise: one a group, two at least, and none for the card that holds text and encode."""
        if self.decode_cards:
            return self.decode_cards // self.spread
        return min(max(self.cards - 1, 1), max(2, self.lanes))

    @property
    def shares(self) -> Shares:
        """Ranks that share a card still hold more than half of it, so that each has another."""
        if self.cards == 1:
            return Shares(0.5, 0.2, 0.1, 0.1)
        if not self.decode_cards:
            return Shares(0.6, 0.4, 0.2, 0.2)
        if self.spread == 1:
            return Shares(1.0, 0.6, 0.2, 0.2)
        return Shares(0.6, float(self.spread), 0.2, 0.2)

    @property
    def name(self) -> str:
        groups = " + ".join(f"{count}×SP{degree}" for degree, count in self.groups)
        split = ", split guidance" if self.split else ""
        own = f"on {self.decode_cards} own" if self.spread == 1 else f"spread over {self.decode_cards} own"
        return f"{groups}{split} · decode {own if self.decode_cards else 'beside'} · text on {self.text}"


@dataclass(frozen=True, slots=True)
class Seat:
    """One lane of a layout and the cards that it runs on; none for what runs on the host."""

    stage: Stage
    number: int
    cards: tuple[int, ...]
    degree: int = 1


def seats(layout: Layout) -> list[Seat]:
    """Every lane but the writers, where Ray puts it on an empty node: in this order, on the fullest card with room.

    ``tests/bench/plan_on_ray.py`` compares that with where Ray does put them.
    """
    shares = layout.shares
    room = [1.0] * layout.cards

    def take(share: float) -> int:
        card = min((card for card, left in enumerate(room) if left >= share), key=lambda card: (room[card], card))
        room[card] = round(room[card] - share, 6)
        return card

    def lane(stage: Stage, number: int, share: float, count: int = 1) -> Seat:
        return Seat(stage, number, tuple(take(share) for _ in range(count)), count if stage == "denoise" else 1)

    degrees = [degree for degree, count in layout.groups for _ in range(count)]
    return [
        *(lane("denoise", number, shares.rank, degree) for number, degree in enumerate(degrees)),
        lane("text", 0, shares.text) if layout.text == "card" else Seat("text", 0, ()),
        lane("encode", 0, shares.encode),
        *(lane("decode", n, min(shares.decode, 1.0), layout.spread) for n in range(layout.decode_lanes)),
    ]


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes of each process on a card, ranks by how many share a sequence; ``overhead`` comes on top of each."""

    ranks: Mapping[int, int]
    text: int
    encode: int
    decode: int
    overhead: int

    def most(self, layout: Layout) -> int:
        """Bytes on the fullest card."""
        held = [0] * layout.cards
        for seat in seats(layout):
            shared = seat.degree // 2 if layout.split else seat.degree
            own = self.ranks[shared] if seat.stage == "denoise" else getattr(self, seat.stage)
            for card in seat.cards:
                held[card] += own + self.overhead
        return max(held)


def layouts(cards: int, heads: int, *, guided: bool) -> Iterator[Layout]:
    """All layouts of a node that are worth a prediction: equal groups, or a large one beside equal smaller ones."""
    degrees = [degree for degree in range(1, cards + 1) if heads % degree == 0]
    texts: tuple[TextPlace, ...] = ("card", "host")
    for decode_cards in range(0, 1 + (cards > 1) + (cards > 2)):
        for groups in _cuts(cards - decode_cards, degrees):
            for split in (False, True) if guided and all(degree % 2 == 0 for degree, _ in groups) else (False,):
                for spread in range(1, decode_cards + 1) if decode_cards else (1,):
                    for text in texts:
                        yield Layout(groups, split, decode_cards, spread, text)


def _cuts(cards: int, degrees: list[int]) -> Iterator[tuple[tuple[int, int], ...]]:
    for large in reversed(degrees):
        if large <= cards and cards % large == 0:
            yield ((large, cards // large),)
        for small in reversed(degrees):
            if small < large < cards and (cards - large) % small == 0:
                yield ((large, 1), (small, (cards - large) // small))
