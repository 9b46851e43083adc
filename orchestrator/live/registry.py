"""The sessions that are under way or wait for controls: the engine's listener, and the only one that asks it anything.

Everything here happens on the engine's event loop and never waits for files: what has to be durable first is so before
these methods are called (see ``service``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

from gamecraft_core.base.errors import Cancelled, FramelaneError
from gamecraft_core.base.messages import ChunkRecord, Receipt
from gamecraft_core.base.spec import Control, Priority, SessionSpec
from orchestrator.admission import Refusal, Wait
from orchestrator.engine import Engine
from orchestrator.instruments import Refused
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.port import NotReady, Overloaded
from orchestrator.live.reel import Reel, split
from orchestrator.live.session import Live
from orchestrator.ports import Listener, Ref

log = logging.getLogger("framelane.live")

#: Gets a fragment's bytes from where the decode lane left them.
Fetch = Callable[[Ref], Awaitable[bytes]]


class Registry(Listener):
    """Owns every ``Live`` that is not settled, and for a while those that are."""

    def __init__(
        self,
        limits: ServiceLimits,
        fetch: Fetch,
        clock: Callable[[], float],
        refused: Callable[[Refused], None] = lambda reason: None,
    ) -> None:
        self.reel = Reel(limits.media_bytes)
        self.refused = refused
        self._limits = limits
        self._fetch = fetch
        self._clock = clock
        self._engine: Engine | None = None
        self._sessions: dict[str, Live] = {}
        self._waiting: dict[str, Live] = {}
        self._parked: dict[str, Live] = {}
        self._settling: set[asyncio.Task[None]] = set()

    def attach(self, engine: Engine) -> None:
        """From now on sessions can be let in."""
        self._engine = engine

    def find(self, session_id: str) -> Live | None:
        return self._sessions.get(session_id)

    def traceparent(self, session_id: str) -> str:
        """What its caller's request came with; "" for nothing, and after a restart."""
        live = self._sessions.get(session_id)
        return live.traceparent if live is not None else ""

    def of_tenant(self, tenant: str) -> list[Live]:
        return [live for live in self._sessions.values() if live.spec.tenant == tenant]

    def watched(self) -> list[Live]:
        """Running sessions that somebody listens to at this moment."""
        return [live for live in self._sessions.values() if live.status == "running" and live.feed.listeners]

    def check_room(self, tenant: str, priority: Priority) -> None:
        """Raise Overloaded where a session would be refused now; asks nobody but this process."""
        answer = self._running.room(tenant, priority)
        if isinstance(answer, Refusal):
            self.refused("queue")
            raise self._overloaded(answer)

    def enter(self, live: Live) -> None:
        """A new session comes in or waits. Raises Overloaded, and then it was never here."""
        self._sessions[live.session_id] = live
        try:
            self._offer(live)
        except Overloaded:
            del self._sessions[live.session_id]
            self.refused("queue")
            raise

    def resume(self, live: Live) -> None:
        """A session of an earlier start: back to the lanes where there is something to do, else it rests."""
        self._sessions[live.session_id] = live
        live.status = "resting"
        if live.closed or len(live.staged) < len(live.controls):
            self._offer_or_park(live)

    def withdraw(self, live: Live) -> None:
        """``live`` could not be promised: as if it had never come."""
        del self._sessions[live.session_id]
        self._waiting.pop(live.session_id, None)
        live.feed.close()
        self._running.cancel(live.session_id)

    def extend(self, live: Live, controls: Iterable[Control]) -> None:
        """``live``, which is open, goes on; if it rests it comes back."""
        more = tuple(controls)
        live.controls += more
        if live.in_engine:
            self._running.extend(live.session_id, more)
        elif not live.settled:
            self._offer_or_park(live)

    def finish(self, live: Live) -> None:
        """No more controls come. A session that still waits is told when it is in: its chunks stay what they are."""
        live.closed = True
        self.stay(live)
        if live.status == "running":
            self._running.finish(live.session_id)
        elif live.status == "resting":
            self._offer_or_park(live)

    def cancel(self, live: Live) -> None:
        """Call ``live`` off, unless it has settled meanwhile."""
        self.stay(live)
        if live.settled:
            return
        if live.in_engine and self._parked.pop(live.session_id, None) is None:
            self._running.cancel(live.session_id)
        else:
            live.gone = asyncio.Event()  # it may be set since the session left the lanes
            self._settle(live, Cancelled("called off"))

    def stay(self, live: Live) -> None:
        """Somebody asks something of ``live``: it does not leave for now."""
        if live.expires is not None:
            live.expires.cancel()
            live.expires = None

    def may_leave(self, live: Live) -> None:
        """Where nothing is left to do, begin to count the seconds until ``live`` leaves the lanes."""
        self.stay(live)
        if live.waits_for_controls:
            pause = self._limits.idle_seconds - self._limits.notice_seconds
            live.expires = asyncio.get_running_loop().call_later(pause, self._warn, live)

    def drop(self, live: Live) -> None:
        """Nothing of ``live`` is asked for any more."""
        self.stay(live)
        live.feed.close()
        self._sessions.pop(live.session_id, None)

    def close(self) -> None:
        """This process ends: whoever listens hears so, and asks again with its cursor."""
        for live in self._sessions.values():
            self.stay(live)
            live.feed.tell("draining", self._clock())
            live.feed.close()

    def step(self, session_id: str, index: int, step: int, steps: int) -> None:
        """The denoise of a chunk is at ``step``."""
        live = self._sessions.get(session_id)
        if live is not None and live.status == "running":
            live.feed.tell("denoising", self._clock(), "step", chunk=index, step=step, steps=steps)

    def preview(self, session_id: str, index: int, image: str, frames: int) -> None:
        """``image``, a data URI, shows the latent frames of a chunk beside each other; too late, it is not told."""
        live = self._sessions.get(session_id)
        if live is None or live.status != "running":
            return
        if (place := live.place(index)) >= live.shown and place not in live.ready:
            live.feed.tell("preview", self._clock(), "preview", chunk=index, frames=frames, image=image)

    def admitted(self, spec: SessionSpec, now: float) -> None:
        live = self._sessions.get(spec.session_id)
        if live is None:
            return
        self._waiting.pop(live.session_id, None)
        live.status, live.position = "running", None
        live.feed.tell("running", now, "queue")
        if live.closed and spec.open:
            self._running.finish(live.session_id)
        self.may_leave(live)
        self._move_up(now)

    def settled(self, spec: SessionSpec | None, receipt: Receipt, ready_at: float, now: float) -> None:
        live = self._sessions.get(spec.session_id) if spec is not None else None
        if live is None or live.settled:
            return
        times: dict[str, Any] = {
            "ready": ready_at,
            "started": receipt.started,
            "ended": receipt.ended,
            "lane": receipt.lane,
        }
        match receipt.stage:
            case "text" | "encode":
                live.feed.tell("encoding", now, stage=receipt.stage, **times)
            case "denoise":
                live.feed.tell("denoised", now, chunk=receipt.index, **times)
            case "decode":
                live.decoding[receipt.index] = times
            case _ if "record" in receipt.facts:
                live.staged[receipt.index] = str(receipt.facts["record"]["staged_key"])
                if receipt.index in live.missed:
                    self._ready(live, receipt.index)
                live.feed.tell("stored", now, chunk=receipt.index, **times)
                self.may_leave(live)
            case _ if "chunks" in receipt.facts:
                self._restored(live, [ChunkRecord(**fields) for fields in receipt.facts["chunks"]], now)

    def decoded(self, spec: SessionSpec, index: int, fragment: Ref, now: float) -> None:
        live = self._sessions.get(spec.session_id)
        if live is not None:
            task = asyncio.get_running_loop().create_task(self._show(live, index, fragment))
            live.fetching.add(task)
            task.add_done_callback(live.fetching.discard)

    def finished(self, spec: SessionSpec, error: FramelaneError | None, now: float) -> None:
        live = self._sessions.get(spec.session_id)
        if live is None:
            pass
        elif live.leaving and isinstance(error, Cancelled):
            live.leaving, live.status = False, "resting"
            live.feed.tell("resting", now, "queue")
            live.feed.forget(1)  # it may rest for ever: players come back to its state, and to what the store has
            live.init = b""
            live.gone.set()
        else:
            self._waiting.pop(live.session_id, None)
            self._settle(live, error)
        self._move_up(now)
        for parked in list(self._parked.values()):
            self._offer_or_park(parked)

    @property
    def _running(self) -> Engine:
        if self._engine is None:
            raise NotReady("the lanes are not ready yet", retry_after=self._limits.retry_seconds)
        return self._engine

    def _offer(self, live: Live) -> None:
        spec = replace(live.spec, controls=tuple(live.controls))
        before, live.status = live.status, "queued"
        live.gone = asyncio.Event()
        try:
            answer = self._running.offer(spec, live.keys())
        except BaseException:
            live.status = before
            raise
        if isinstance(answer, Refusal):
            live.status = before
            raise self._overloaded(answer)
        if isinstance(answer, Wait):
            self._waiting[live.session_id] = live
            self._place(live, answer.position, self._clock())

    def _offer_or_park(self, live: Live) -> None:
        """What was promised is not refused: where there is no room, not even to wait, it waits here."""
        try:
            self._offer(live)
            self._parked.pop(live.session_id, None)
        except Overloaded:
            self._parked[live.session_id] = live
            live.status = "queued"

    def _place(self, live: Live, position: int, now: float) -> None:
        if live.position != position:
            live.position = position
            live.feed.tell("queued", now, "queue", position=position)

    def _move_up(self, now: float) -> None:
        """Tell those who wait where they are: live sessions before the others, then as they came."""
        ordered = sorted(self._waiting.values(), key=lambda live: live.spec.priority == "batch")
        for place, live in enumerate(ordered, 1):
            self._place(live, min(place, live.position or place), now)

    def _warn(self, live: Live) -> None:
        notice = self._limits.notice_seconds
        live.feed.tell("expiring", self._clock(), "idle", seconds=notice)
        live.expires = asyncio.get_running_loop().call_later(notice, self._expire, live)

    def _expire(self, live: Live) -> None:
        live.expires = None
        if live.waits_for_controls and not live.turn.locked():
            live.leaving = True
            self._running.cancel(live.session_id)

    def _restored(self, live: Live, records: list[ChunkRecord], now: float) -> None:
        """The engine goes on from these chunks; whatever else was durable did not fit."""
        live.staged = {record.index: record.staged_key for record in records}
        live.have(len(records), live.shown)
        live.feed.tell("restored", now, chunks=len(records))
        self.may_leave(live)

    async def _show(self, live: Live, index: int, fragment: Ref) -> None:
        try:
            init, segment = split(await self._fetch(fragment))
        except Exception as error:  # the write lane has them, and stores the chunk; or the session goes back before it
            log.warning(
                "it cannot be shown yet: %r",
                error,
                extra={"session": live.session_id, "chunk": index, "tenant": live.spec.tenant},
            )
            live.missed.add(index)  # players read it from the store, each for itself, once it is there
            if index in live.staged:
                self._ready(live, index)
            return
        live.init = init or live.init
        self.reel.keep(live.session_id, live.place(index), segment)
        self._ready(live, index)

    def _ready(self, live: Live, index: int) -> None:
        """Players can have chunk ``index``, and with it those that waited for it."""
        if (place := live.place(index)) >= live.shown:
            live.ready.add(place)
        while live.shown in live.ready:
            live.ready.discard(live.shown)
            index = live.place(live.shown)
            times = live.decoding.pop(index, {})
            live.feed.tell("decoded", self._clock(), chunk=index, frames=live.frames(index), **times)
            live.shown += 1

    def _settle(self, live: Live, error: FramelaneError | None) -> None:
        self._parked.pop(live.session_id, None)
        task = asyncio.get_running_loop().create_task(self._settled(live, error))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settled(self, live: Live, error: FramelaneError | None) -> None:
        """The last word on ``live``, after those on its chunks."""
        await asyncio.gather(*live.fetching)
        self.stay(live)
        live.position, live.error = None, error if not isinstance(error, Cancelled) else None
        live.status = "committed" if error is None else "cancelled" if isinstance(error, Cancelled) else "failed"
        if error is None:
            live.shown = len(live.controls)
        failure = (
            {"reason": error.message, "field": error.field, "remedy": error.remedy} if live.error and error else {}
        )
        live.feed.tell(live.status, self._clock(), **failure)
        live.feed.close()
        live.gone.set()
        asyncio.get_running_loop().call_later(self._limits.linger_seconds, self._forget, live)

    def _forget(self, live: Live) -> None:
        if self._sessions.get(live.session_id) is live:
            del self._sessions[live.session_id]

    def _overloaded(self, answer: Refusal) -> Overloaded:
        return Overloaded(str(answer), retry_after=self._limits.retry_seconds, position=answer.position)
