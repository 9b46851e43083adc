"""Shards are published once, when their slice has settled, with the rows that committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.shard_book import ShardBook


@given(st.integers(1, 40), st.integers(1, 12), st.randoms(use_true_random=False))
def test_every_slice_is_published_exactly_once(rows: int, size: int, random: object) -> None:
    order = list(range(1, rows + 1))
    random.shuffle(order)  # type: ignore[attr-defined]
    book = ShardBook(rows, size)
    published = {}
    for row in order:
        settled = book.failed(row) if row % 3 == 0 else book.committed(row, f"s{row}", None if row % 3 == 1 else row)
        if settled is not None:
            assert settled.order.shard not in published
            published[settled.order.shard] = settled
    assert sorted(published) == list(range(book.total))
    for index, shard in published.items():
        slice_ = range(index * size + 1, min(rows, (index + 1) * size) + 1)
        assert shard.payloads == tuple(row for row in slice_ if row % 3 == 2)
        assert shard.order.stored == tuple(f"s{row}" for row in slice_ if row % 3 == 1)


def test_a_shard_that_stands_is_left_alone() -> None:
    book = ShardBook(4, 2, published=[0])
    assert book.committed(1, "a", None) is None
    assert book.committed(2, "b", None) is None
    assert book.failed(3) is None
    assert book.failed(4) is not None
    assert book.published == book.total == 2


def test_rows_of_a_published_shard_are_closed() -> None:
    book = ShardBook(5, 2, published=[1])
    assert [book.closed(row) for row in range(1, 6)] == [False, False, True, True, False]
    book.failed(5)
    assert book.closed(5), "its order is out"


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 9), st.randoms(use_true_random=False))
def test_records_are_held_within_a_number_and_read_from_the_store_past_it(
    rows: int, size: int, max_held: int, random: object
) -> None:
    order = list(range(1, rows + 1))
    random.shuffle(order)  # type: ignore[attr-defined]
    book = ShardBook(rows, size, max_held=max_held)
    found = {}
    for row in order:
        if publication := book.committed(row, f"s{row}", row):
            assert len(publication.payloads) <= max_held + 1
            assert publication.order.fresh == tuple(f"s{row}" for row in publication.payloads)
            found[publication.order.shard] = sorted(int(name[1:]) for name in publication.order.from_store().stored)
        assert sum(len(part.fresh) for part in book._slices.values()) == book._held <= max_held
    assert [row for _, part in sorted(found.items()) for row in part] == list(range(1, rows + 1))


def test_the_slice_that_has_waited_longest_gives_its_records_up() -> None:
    book = ShardBook(6, 3, max_held=3)
    for row in (1, 2, 4, 5):
        book.committed(row, f"s{row}", f"record {row}")
    later = book.committed(6, "s6", "record 6")
    assert later is not None
    assert later.payloads == ("record 4", "record 5", "record 6")
    first = book.committed(3, "s3", "record 3")
    assert first is not None
    assert (first.order.stored, first.payloads) == (("s1", "s2"), ("record 3",))
