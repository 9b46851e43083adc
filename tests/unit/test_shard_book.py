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
