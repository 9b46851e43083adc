"""The service itself, in the process that runs the engine: what callers ask, made durable first and then done.

Keeps the port ``Service``. Files are read and written aside, so that the event loop, which the engine shares, never
waits for them; whoever is refused for want of room is told so before anything is read or written.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Literal

from gamecraft_core.base.spec import Priority
from gamecraft_core.base.store import Store
from gamecraft_core.media.fragment import codec_of
from orchestrator.engine import Engine
from orchestrator.live.archive import Archive, first_number, no_such, restored
from orchestrator.live.desk import Desk
from orchestrator.live.feed import Feed
from orchestrator.live.journal import Journal, request_name
from orchestrator.live.limits import ServiceLimits
from orchestrator.live.port import Conflict, Init, News, NoSuchSession, NotReady, Overloaded, Upload
from orchestrator.live.quotas import Quotas
from orchestrator.live.reel import Aside, Film
from orchestrator.live.registry import Registry
from orchestrator.live.session import Live

_FINISH = "finish the session first, or take stream.mp4"


class LocalService:
    """Sessions on the engine of this process."""

    def __init__(
        self,
        registry: Registry,
        desk: Desk,
        store: Store,
        limits: ServiceLimits,
        aside: Aside,
        clock: Callable[[], float],
        metrics: Callable[[], bytes] = lambda: b"",
        timeline: Callable[[str, float], bytes] = lambda tenant, seconds: b"{}",
    ) -> None:
        self._registry = registry
        self._desk = desk
        self._store = store
        self._limits, self._aside, self._clock = limits, aside, clock
        self._journal = Journal(store)
        self._archive = Archive(store, self._journal)
        self._quotas = Quotas(limits, registry.of_tenant, clock, registry.refused)
        self.charge = self._quotas.charge
        self._state: Literal["starting", "ready", "draining"] = "starting"
        self.metrics, self.timeline = metrics, timeline

    def state(self) -> Literal["starting", "ready", "draining"]:
        return self._state

    async def begin(self, engine: Engine) -> None:
        """Take up what earlier starts promised, and from then on whatever comes."""
        promises = await self._aside(self._archive.unsettled)
        self._registry.attach(engine)
        for promise, keys in promises:
            self._registry.resume(restored(promise, keys, self._clock()))
        self._state = "ready"

    def drain(self) -> None:
        """Accept nothing more; listeners hear that this process ends."""
        self._state = "draining"
        self._registry.close()

    def check_room(self, tenant: str, *, played: bool) -> None:
        self._check_ready()
        self._quotas.check_session(tenant)
        self._registry.check_room(tenant, _class_of(played))

    async def create(
        self,
        cells: Mapping[str, Any],
        tenant: str,
        upload: Upload | None = None,
        *,
        played: bool = True,
        key: str = "",
        traceparent: str = "",
    ) -> dict[str, Any]:
        key = await self._aside(request_name, key, cells, upload) if key else ""
        if (known := await self._named(tenant, key)) is not None:
            return known
        self.check_room(tenant, played=played)
        now = self._clock()
        session_id = f"{int(now * 1000):011x}-{secrets.token_hex(5)}"
        spec = await self._aside(self._desk.spec, cells, session_id, tenant, _class_of(played), upload, played)
        if spec.num_chunks > self._limits.max_chunks:
            field = "actions" if spec.layout == "tiled" else "seconds"
            raise Conflict("too many chunks", field=field, remedy=f"ask for {self._limits.max_chunks} at most")
        if (known := await self._named(tenant, key)) is not None:
            return known
        live = Live(spec, now, Feed(first_number(now)), list(spec.controls), not spec.open, key, traceparent)
        self._quotas.check_session(tenant)
        with self._quotas.promising(tenant, spec.num_chunks):
            self._registry.enter(live)
        async with live.turn:
            try:
                await self._aside(self._journal.begin, spec, now, key)
            except BaseException:
                self._registry.withdraw(live)
                raise
        return live.describe()

    async def _named(self, tenant: str, key: str) -> dict[str, Any] | None:
        """The session of that key, once it is promised. Where it answers None nothing else has run meanwhile."""
        while key:
            live = next((live for live in self._registry.of_tenant(tenant) if live.key == key), None)
            if live is None:
                return None
            async with live.turn:
                if self._registry.find(live.session_id) is live:
                    return live.describe()
        return None

    def catalogue(self) -> list[dict[str, Any]]:
        return self._desk.catalogue()

    def lasting(self, preset: str, seconds: float | None) -> dict[str, Any]:
        return self._desk.lasting(preset, seconds)

    async def describe(self, session_id: str, tenant: str) -> dict[str, Any]:
        live = await self._find(session_id, tenant)
        return {**live.describe(), "speeds": self._desk.speeds(live.spec.preset)}

    async def listing(
        self, tenant: str, after: str, limit: int, *, played: bool | None = None, newest_first: bool = False
    ) -> list[dict[str, Any]]:
        self._check_ready()
        names = self._names(tenant, after, newest_first)
        found: list[dict[str, Any]] = []
        while len(found) < limit and (batch := await self._aside(lambda: list(islice(names, limit - len(found))))):
            for name in batch:
                try:
                    session = await self.describe(name, tenant)
                except NoSuchSession:
                    continue  # removed meanwhile, or another service's
                if played is None or session["played"] is played:
                    found.append(session)
        return found

    async def control(self, session_id: str, tenant: str, actions: Any, at: int | None) -> dict[str, Any]:
        live = await self._find(session_id, tenant)
        async with self._asking(live):
            self._check_takes_controls(live)
            controls = await self._aside(self._desk.controls, actions, live.spec)
            first = len(live.controls)
            if (
                at is not None
                and at + len(controls) <= first
                and tuple(live.controls[at:][: len(controls)]) == controls
            ):
                return {**live.describe(), "first": at, "count": len(controls)}  # it was accepted before
            if at is not None and at != first:
                raise Conflict(f"the next chunk is {first}", field="at", remedy=f"send {first}, or leave it out")
            self._check_amount(live, first + len(controls))
            if live.leaving:
                await live.gone.wait()
                self._check_takes_controls(live)
            if not live.in_engine:
                self._quotas.check_session(tenant)
                self._registry.check_room(tenant, live.spec.priority)
            with self._quotas.promising(tenant, len(controls)):
                await self._aside(self._journal.extend, live.spec, first, controls)
                self._registry.extend(live, controls)
            return {**live.describe(), "first": first, "count": len(controls)}

    async def finish(self, session_id: str, tenant: str) -> dict[str, Any]:
        live = await self._find(session_id, tenant)
        async with self._asking(live):
            if not live.closed and not live.settled:
                self._check_ready()
                if live.leaving:
                    await live.gone.wait()
                if live.controls:
                    await self._aside(self._journal.finish, live.spec, len(live.controls))
                    self._registry.finish(live)
                else:
                    await self._call_off(live)
            return live.describe()

    async def cancel(self, session_id: str, tenant: str) -> dict[str, Any]:
        live = await self._find(session_id, tenant)
        async with self._asking(live):
            if not live.settled:
                await self._call_off(live)
            return live.describe()

    async def delete(self, session_id: str, tenant: str) -> None:
        live = await self._find(session_id, tenant)
        async with self._asking(live):
            if not live.settled:
                await self._call_off(live)
            await self._aside(self._archive.remove, tenant, session_id)
            self._registry.drop(live)

    async def news(self, session_id: str, tenant: str, after: int | None) -> News:
        live = await self._find(session_id, tenant)
        feed = live.feed
        events = None if after is None else feed.after(after)
        if events is None or after is None:
            state = {"seq": feed.seq, "type": "state", "at": self._clock(), "session": live.describe()}
            return News([state], feed.seq, live.shown, feed.closed)
        if not events:
            await feed.beyond(after)
            events = feed.after(after) or []
        cursor = events[-1].seq if events else after
        return News([event.describe() for event in events], cursor, live.shown, feed.closed and cursor >= feed.seq)

    async def init(self, session_id: str, tenant: str) -> Init:
        while True:
            live = await self._find(session_id, tenant)
            if not (live.init or live.shown):
                raise Conflict("there is nothing to see yet", remedy="wait for its first chunk")
            async with self._elsewhere(live):
                live.init = live.init or await self._aside(self._archive.init, live)
                return Init(live.init, codec_of(live.init))

    async def segment(self, session_id: str, tenant: str, index: int) -> bytes:
        while True:
            live = await self._find(session_id, tenant)
            if not 0 <= index < live.shown:
                raise Conflict(f"chunk {index} is not there", remedy=f"there are {live.shown} chunks by now")
            if (segment := self._registry.reel.find(session_id, index)) is not None:
                return segment
            async with self._elsewhere(live):
                segment = await self._aside(self._archive.segment, live, index)
                self._registry.reel.keep(session_id, index, segment)
                return segment

    async def video(self, session_id: str, tenant: str) -> tuple[int, str]:
        film = await self._film(session_id, tenant)
        return film.size, film.version

    async def video_bytes(self, session_id: str, tenant: str, start: int, end: int, version: str) -> bytes:
        film = await self._film(session_id, tenant)
        return await self._aside(film.read, start, end)

    async def records(self, session_id: str, tenant: str) -> dict[str, Any]:
        self._check_committed(await self._find(session_id, tenant))
        return await self._aside(self._archive.record, session_id)

    async def _find(self, session_id: str, tenant: str) -> Live:
        if self._state == "starting":
            self._check_ready()
        live = self._registry.find(session_id)
        if live is None:
            return await self._aside(self._archive.find, tenant, session_id, self._clock())
        if live.spec.tenant != tenant:
            raise no_such(session_id)
        return live

    @asynccontextmanager
    async def _asking(self, live: Live) -> AsyncIterator[None]:
        """What changes a session comes one after the other, and keeps it from leaving meanwhile."""
        async with live.turn:
            self._registry.stay(live)
            try:
                yield
            finally:
                self._registry.may_leave(live)

    @asynccontextmanager
    async def _elsewhere(self, live: Live) -> AsyncIterator[None]:
        """What is not found where it was is being stored, or joined with the rest: ends when it is worth another look.

        Raises where it never will be.
        """
        status, cursor = live.status, live.feed.seq
        try:
            yield
        except FileNotFoundError:
            if not live.feed.closed:
                await live.feed.beyond(cursor)
            elif live.status == status:
                self._check_ready()
                raise Conflict("what it showed is gone", remedy="the session was called off") from None

    async def _call_off(self, live: Live) -> None:
        """Cancel ``live`` for good, and remove what it has made."""
        self._check_ready()
        if live.leaving:
            await live.gone.wait()
        await self._aside(self._journal.cancel, live.spec)
        self._registry.cancel(live)
        await live.gone.wait()
        if live.status == "cancelled":
            await self._aside(self._archive.clear, live.session_id)

    async def _film(self, session_id: str, tenant: str) -> Film:
        self._check_committed(await self._find(session_id, tenant))
        return await self._aside(self._archive.film, session_id)

    def _names(self, tenant: str, after: str, newest_first: bool) -> Iterator[str]:
        """Ids in the order of their creation, beyond ``after``; the store is asked as they are taken."""
        names = (noted.session_id for noted in self._journal.names(tenant) if "request" in noted.whats)
        if newest_first:
            yield from sorted((name for name in names if not after or name < after), reverse=True)
        else:
            yield from (name for name in names if name > after)

    def _check_ready(self) -> None:
        if self._state != "ready":
            self._registry.refused("not_ready")
            what = "starts" if self._state == "starting" else "is about to stop"
            raise NotReady(f"the service {what}", retry_after=self._limits.retry_seconds)

    def _check_takes_controls(self, live: Live) -> None:
        self._check_ready()
        if live.closed or live.settled:
            raise Conflict("the session takes no more controls", field="actions", remedy="begin another")

    def _check_amount(self, live: Live, asked: int) -> None:
        if asked > self._limits.max_chunks:
            remedy = "finish it, and begin another from its last frames"
            raise Conflict(f"a session has {self._limits.max_chunks} chunks at most", field="actions", remedy=remedy)
        if asked - live.shown > self._limits.max_ahead:
            self._registry.refused("ahead")
            raise Overloaded(
                f"{len(live.controls) - live.shown} controls wait to be carried out",
                field="actions",
                retry_after=live.spec.chunk_frames / live.spec.fps,
            )

    @staticmethod
    def _check_committed(live: Live) -> None:
        if live.status != "committed":
            raise Conflict(f"the session is {live.status}", remedy=_FINISH)


def _class_of(played: bool) -> Priority:
    """Somebody watches what is played; a video can wait."""
    return "interactive" if played else "batch"
