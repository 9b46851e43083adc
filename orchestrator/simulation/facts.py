"""What simulated lanes say of their orders, as real ones would.

``Brief`` makes nothing but what the board needs, fast; ``Full`` builds every order, so that records and commits are
those of a real run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

from gamecraft_core.base.messages import CommitOrder, DecodeOrder, FailOrder, PublishOrder, WriteOrder
from gamecraft_core.dataset import layout
from orchestrator.board import Board
from orchestrator.tasks import Kind, Task

_DIGEST = "0" * 64
_NO_BYTES: Mapping[Kind, int] = {}


class Facts(Protocol):
    """Makes the facts of a task's receipt."""

    def of(self, task: Task, sp_degree: int) -> dict[str, Any]: ...


class Brief:
    """Facts that are shared, where that is possible; records are bare."""

    def __init__(self, payload_bytes: Mapping[Kind, int] = _NO_BYTES) -> None:
        size = payload_bytes.get
        self._shared: dict[Kind, dict[str, Any]] = {
            "text": {"payload_bytes": size("text", 0)},
            "encode": {"payload_bytes": size("encode", 0)},
            "denoise": {"payload_bytes": size("denoise", 0), "latents_sha256": _DIGEST},
            "commit": {"stored": True, "committed": True},
            "publish": {},
        }
        self._decoded = size("decode", 0)
        self._by_frames: dict[int, dict[str, Any]] = {}
        self._timings: dict[str, float | None] = {}

    def of(self, task: Task, sp_degree: int) -> dict[str, Any]:
        facts = self._shared.get(task.kind)
        if facts is not None:
            return facts
        assert task.session is not None
        if task.kind == "decode":
            frames = task.session.spec.chunk_frames
            if frames not in self._by_frames:
                self._by_frames[frames] = {"payload_bytes": self._decoded, "frames": frames}
            return self._by_frames[frames]
        if task.kind == "fail":
            assert isinstance(task.order, FailOrder)
            return {"failure": asdict(task.order)}
        return {"stored": True, "record": self._record(task)}

    def _record(self, task: Task) -> dict[str, Any]:
        assert task.session is not None
        return {
            "index": task.index,
            "start": 0,
            "end": 0,
            "control": {},
            "seed": 0,
            "sp_degree": task.session.chunks[task.index].sp_degree,
            "timings": self._timings,
            "latents_uri": None,
            "latents_sha256": _DIGEST,
        }


class Full:
    """Facts from the very orders that lanes would get; ``commits`` and ``published`` are those carried out."""

    def __init__(self, board: Board, payload_bytes: Mapping[Kind, int] = _NO_BYTES) -> None:
        self._board = board
        self._bytes = payload_bytes
        self.commits: list[CommitOrder] = []
        self.published: list[PublishOrder] = []

    def of(self, task: Task, sp_degree: int) -> dict[str, Any]:
        if task.dead and task.session is not None:
            return {"payload_bytes": 0, "latents_sha256": _DIGEST}  # nobody reads it: its session has ended
        size = {"payload_bytes": self._bytes.get(task.kind, 0)}
        order, _ = self._board.order(task)
        match order:
            case DecodeOrder():
                return {**size, "frames": order.frames}
            case WriteOrder():
                degree = order.record.sp_degree
                key = layout.chunk_key(order.session_id, order.index, degree, _DIGEST)
                record = replace(order.record, staged_key=key, fragment_sha256=_DIGEST)
                return {"stored": True, "record": asdict(record)}
            case CommitOrder():
                self.commits.append(order)
                return {"stored": True, "committed": True}
            case FailOrder():
                return {"failure": order.failure()}
            case PublishOrder():
                self.published.append(order)
                return {}
            case _:
                return {**size, "latents_sha256": _DIGEST}
