"""Sessions that begin from what is durable of them: after a lost payload, and at a start after a crash."""

from __future__ import annotations

from typing import Any

import pytest

from gamecraft_core.base.errors import StateLost
from gamecraft_core.base.messages import (
    CommitOrder,
    DecodeOrder,
    DenoiseOrder,
    EncodeOrder,
    PublishOrder,
    Receipt,
    RestoreOrder,
    WriteOrder,
)
from gamecraft_core.base.spec import SessionSpec
from gamecraft_core.dataset import layout
from orchestrator.board import Board
from orchestrator.limits import Limits
from tests.fakes.lanes import restored
from tests.fakes.sessions import provenance, session
from tests.fakes.world import Ledger, World, failing, usual

ROWS = [session(f"s{number}", chunks=3, row=number + 1) for number in range(4)]


@pytest.mark.parametrize("kind", ["DenoiseOrder", "DecodeOrder", "WriteOrder", "CommitOrder"])
def test_a_session_whose_payload_is_gone_goes_back_to_what_is_durable(kind: str) -> None:
    world = World(failing({kind: 1}, StateLost))
    for lane in world.lanes:
        lane.restores = restored
    assert world.run(ROWS)
    assert world.ledger.done == {row.session_id: None for row in ROWS}
    assert world.board.census.payload_bytes == 0
    for order, _, _ in world.logged(CommitOrder):
        assert [chunk.index for chunk in order.chunks] == [0, 1, 2]


def test_a_published_rows_lost_payload_is_read_from_the_store() -> None:
    world = World(failing({"PublishOrder": 1}, StateLost))
    assert world.run(ROWS)
    (order, _, _) = world.logged(PublishOrder)[0]
    assert (order.stored, order.fresh) == (("s0", "s1", "s2", "s3"), ())


def test_a_session_that_loses_its_state_for_ever_is_set_aside() -> None:
    world = World(lambda order: StateLost("gone") if isinstance(order, DecodeOrder) else usual(order))
    assert world.run([session("s0", chunks=1)], Limits(max_rewinds=3))
    assert "again and again" in str(world.ledger.done["s0"])
    assert len(world.logged(DenoiseOrder)) == 4


def staged(name: str, count: int, degree: int = 1) -> tuple[str, ...]:
    return tuple(layout.chunk_key(name, index, degree, "1" * 64) for index in range(count))


def test_a_session_goes_on_after_its_durable_chunks() -> None:
    world = World(groups=(1, 2))
    for lane in world.lanes:
        lane.restores = restored
    rows = [session("old", chunks=4, row=1), session("new", chunks=2, row=2)]
    assert world.run(rows, staged={"old": staged("old", 3, degree=2)})
    denoised = [(o.session_id, o.index) for o, _, _ in world.logged(DenoiseOrder)]
    assert sorted(denoised) == [("new", 0), ("new", 1), ("old", 3)]
    assert not [o for o, _, _ in world.logged(EncodeOrder) if o.session_id == "old"]
    (order,) = [o for o, _, _ in world.logged(CommitOrder) if o.session_id == "old"]
    assert [chunk.sp_degree for chunk in order.chunks] == [2, 2, 2, 2], "at the degree of its first chunk"
    assert [chunk.staged_key for chunk in order.chunks] == [*staged("old", 3, degree=2), ""]
    (write,) = [o for o, _, _ in world.logged(WriteOrder) if o.session_id == "old"] or [None]
    assert write is None


def test_a_session_whose_durable_chunks_are_void_begins_again() -> None:
    world = World()
    assert world.run([session("old", chunks=2)], staged={"old": staged("old", 1)})
    assert len(world.logged(RestoreOrder)) == len(world.logged(EncodeOrder)) == 1
    assert [o.index for o, _, _ in world.logged(DenoiseOrder)] == [0, 1]


def test_every_write_names_the_latents_its_chunk_continued_from() -> None:
    world = World()
    assert world.run([session("a", chunks=3)])
    writes = [o for o, _, _ in world.logged(WriteOrder)]
    assert [o.history_sha256 for o in writes] == ["", "0" * 64]
    assert len({o.identity for o in writes}) == 1


class Heard(Ledger):
    """What lanes were given with orders on chunks, and the fewest bytes that were held."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.given: dict[str, list[tuple[Any, tuple[Any, ...]]]] = {"denoise": [], "decode": []}
        self.least = 0
        self._world = world

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        super().settled(spec, receipt, ready_at, now)
        self.least = min(self.least, self._world.board.census.payload_bytes)

    def denoised(self, spec: SessionSpec, index: int, ref: Any, now: float) -> None:
        self.given["denoise"].append(ref[1:])

    def decoded(self, spec: SessionSpec, index: int, ref: Any, now: float) -> None:
        self.given["decode"].append(ref[1:])


PACKED = session("p", chunks=3, chunk_frames=36, layout="inverted", keeps_start=True)


@pytest.mark.parametrize("lost", [None, "EncodeOrder", "DenoiseOrder", "DecodeOrder", "WriteOrder", "CommitOrder"])
@pytest.mark.parametrize("there", [0, 1, 2])
def test_every_chunk_is_given_the_kept_start_whatever_is_lost(lost: str | None, there: int) -> None:
    world = World(failing({lost: 1} if lost else {}, StateLost))
    for lane in world.lanes:
        lane.restores = restored
    world.ledger = heard = Heard(world)
    assert world.run([PACKED], staged={"p": staged("p", there)} if there else None)
    assert world.ledger.done == {"p": None}
    assert world.board.census.payload_bytes == 0
    assert heard.least >= 0
    for order, (_, history, start) in heard.given["denoise"]:
        assert start[0] == "encode"
        assert (history is None) == (order.index == 0)
        assert history is None or history[0] in ("denoise", "write")
    for _, (latents, start) in heard.given["decode"]:
        assert (latents[0], start[0]) == ("denoise", "encode")
    spans = [(o.index, o.start_frame, o.frames) for o, _ in heard.given["decode"]]
    assert set(spans) <= {(0, 109, 0), (1, 73, 36), (2, 0, 73)}
    *_, (order, _, _) = world.logged(CommitOrder)
    assert [chunk.index for chunk in order.chunks] == [0, 1, 2]


def test_a_finished_session_whose_chunks_are_all_durable_needs_no_start_any_more() -> None:
    board = Board(Limits(), provenance)
    spec = session("o", chunks=2, keeps_start=True, open=True)
    tasks = board.admit(spec, 0.0, 0.0, staged("o", 2))
    board.finish(board.active["o"], 0.0)
    (restore,) = (task for task in tasks if task.kind == "restore")
    order, _ = board.order(restore)
    assert isinstance(order, RestoreOrder)
    found = Receipt(
        stage="write",
        session_id="o",
        index=0,
        lane="write-0",
        started=0.0,
        ended=1.0,
        facts={"chunks": restored(order)},
    )
    assert [task.kind for task in board.settle(restore, found, "latents", 1, 1.0)] == ["commit"]
