"""The service put together: fleet, engine, sessions and web server, in one process on one event loop.

``Running`` knows no web server: ``jobs.gateway`` puts it behind Ray Serve.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import generate_latest
from starlette.types import ASGIApp

from gamecraft_core.base import logs
from gamecraft_core.base.access import Access
from gamecraft_core.base.errors import BadInput, UsageError
from gamecraft_core.base.store import Store, open_store, scheme_of
from gamecraft_core.base.tracing import open_spans
from gamecraft_core.base.version import code_version
from gamecraft_core.dataset import claim
from jobs.config import RunConfig, identity, public, with_endpoint
from jobs.signals import Stopper
from jobs.work import provenance_from
from orchestrator.board import Board
from orchestrator.demand import Pace
from orchestrator.elastic import Elastic
from orchestrator.engine import Engine
from orchestrator.http.app import build
from orchestrator.http.gate import MAX_MESSAGE_BYTES, Rules, read_tokens
from orchestrator.instruments import Refused
from orchestrator.live.desk import Desk
from orchestrator.live.previews import Previews
from orchestrator.live.registry import Registry
from orchestrator.live.service import LocalService
from orchestrator.live.steps import Steps
from orchestrator.metrics import Metrics
from orchestrator.ports import Keeper, Lane, Listener, Yard
from orchestrator.scheduler import Scheduler
from orchestrator.timeline import Timeline
from orchestrator.tracing import Traces

log = logging.getLogger("framelane.serve")

#: What stands for a run's id.
RUN = "service"

#: What the page offers to begin from.
STARTS = Path(__file__).with_name("demo") / "micro"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: Longer than clients keep a connection that nobody uses: who closes it must not meet a request on its way.
KEEP_ALIVE_S = 75
#: Descriptors that the process has room for from the start.
_DESCRIPTORS = 1000
#: Of the timeline: some minutes of a busy node of eight. One takes half a kilobyte.
_RECEIPTS = 10_000
#: How long a client may take to hear that the service ends.
_GOODBYE_S = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Where the service listens, and who may come: ``tokens`` is a file's path."""

    host: str
    port: int
    tokens: str | None = None
    origins: tuple[str, ...] = ()

    def rules(self) -> Rules:
        """Tokens are needed wherever others than this machine's users can come."""
        local = _is_local(self.host)
        if self.tokens is None and not local:
            raise UsageError(
                f"{self.host} can be reached by others",
                field="tokens",
                remedy="give --tokens FILE with TENANT TOKEN lines",
            )
        hosts = frozenset({*_LOOPBACK, self.host}) if local and self.tokens is None else frozenset[str]()
        return Rules(_tokens(self.tokens) if self.tokens else None, hosts, frozenset(self.origins))


def serve(config: RunConfig, out: str, place: Place, address: str | None) -> int:
    """Serve until told to stop; the exit status."""
    logs.setup(config.telemetry.logs, run=RUN)
    rules = place.rules()
    config = with_endpoint(config, os.environ)
    store = claimed(config, out)
    with listening(place.host, place.port) as listener:
        asyncio.run(_on_cluster(config, store, rules, listener, address))
    return 0


async def _on_cluster(
    config: RunConfig, store: Store, rules: Rules, listener: socket.socket, address: str | None
) -> None:
    from actors.cluster import connected

    with connected(config.fleet, len(config.presets), address):
        stopper = Stopper()
        stopper.listen()
        running = Running(config, store)
        server = QuietServer(
            uvicorn.Config(
                running.app(rules),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="websockets-sansio",
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_per_message_deflate=False,  # video does not shrink, and trying takes 30 ms a MiB from everybody else
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GOODBYE_S,
            )
        )

        def began(engine: Engine) -> None:
            stopper.engine, stopper.first = engine, running.service.drain
            log.info("ready: %s", url_of(*listener.getsockname()[:2]))

        web = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await running.on_fleet(web, began)
        except asyncio.CancelledError:
            log.info("called off")
        finally:
            stopper.hand_back()
            server.should_exit = True
            await web


async def _fragment_bytes(ref: Any) -> bytes:
    """A fragment is small, and read where players are: it comes to this node."""
    fragment = await ref
    data: bytes = fragment.data
    return data


class Running:
    """One process's sessions: ``service`` answers for them, and once there are lanes an engine makes them."""

    def __init__(self, config: RunConfig, store: Store) -> None:
        self._config = config
        self._store = store
        self._registry = Registry(config.service, _fragment_bytes, time.time, self._refused)
        self._metrics: Metrics | None = None
        self._timeline = Timeline(_RECEIPTS)
        options = config.store.model_dump()
        desk = Desk(config.presets, config.preset.name, store, options)
        self.service = LocalService(
            self._registry, desk, store, config.service, asyncio.to_thread, time.time, self._measured, self._drawn
        )

    def app(self, rules: Rules, lifespan: Callable[[Any], AbstractAsyncContextManager[None]] | None = None) -> ASGIApp:
        """The web application on it; ``lifespan`` runs as long as its server."""
        return build(self.service, rules, starts=STARTS, lifespan=lifespan)

    async def on_fleet(self, end: asyncio.Future[None], began: Callable[[Engine], None]) -> None:
        """Start the fleet on the connected cluster, serve on it until ``end`` is done, and take it down.

        ``began`` hears of the engine as soon as sessions can come.
        """
        from actors import fleet

        config = self._config
        presets = list(config.presets.values())
        started = await fleet.start(
            config.fleet, presets, self._store.root, config.store.model_dump(), telemetry=config.telemetry.of(RUN)
        )
        try:
            await self._on_lanes(started.lanes, started.facts, started, started, end, began)
            await started.flush()
        finally:
            started.close()

    async def _on_lanes(
        self,
        lanes: Sequence[Lane],
        facts: Any,
        keeper: Keeper,
        yard: Yard,
        end: asyncio.Future[None],
        began: Callable[[Engine], None],
    ) -> None:
        limits, output = self._config.limits, self._config.output
        board = Board(limits, provenance_from(facts), keep_latents=output.keep_latents)
        scheduler = Scheduler(limits, board.census)
        self._metrics = metrics = Metrics(lanes, scheduler, time.time())
        steps = Steps(self._registry, self._config.service.progress_seconds)
        pace = Pace(**self._config.fleet.elastic.model_dump())
        elastic = Elastic(yard, scheduler, limits, pace, time.time)
        viewers: list[Listener] = [steps, Previews(self._registry)] if self._config.service.previews else [steps]
        listeners = [metrics, self._registry, self._timeline, *viewers, elastic]
        spans = open_spans(self._config.telemetry.of(RUN), "control")
        traces = None if spans is None else Traces(spans, self._registry.traceparent)
        if traces is not None:
            listeners.append(traces)
        engine = Engine(lanes, board, scheduler, limits, None, listeners, time.time, keeper=keeper, traces=traces)
        metrics.attach(engine)
        for lane in lanes:
            for viewer in viewers:
                viewer.lane_joined(lane, time.time())
        await self.service.begin(engine)
        serving, asking = asyncio.create_task(engine.serve()), asyncio.create_task(steps.run())
        began(engine)
        try:
            async with elastic.beside(engine):
                either: set[asyncio.Future[Any]] = {serving, end}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    self.service.drain()
                    engine.stop()
                await serving
        finally:
            self.service.drain()
            for each in (serving, asking):
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each
            if traces is not None:
                traces.close()

    def _refused(self, reason: Refused) -> None:
        if self._metrics:
            self._metrics.turned_away(reason)

    def _drawn(self, tenant: str, seconds: float) -> bytes:
        return self._timeline.to_json(tenant, time.time() - seconds)

    def _measured(self) -> bytes:
        return generate_latest(self._metrics.registry) if self._metrics else b""


class QuietServer(uvicorn.Server):
    """Leaves signals to the service, which ends in its own order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def claimed(config: RunConfig, out: str) -> Store:
    """The output, claimed for this service: sessions of other settings are not taken up."""
    if scheme_of(out) == "memory":
        raise UsageError("memory:// does not outlive its process", field="out", remedy="give a folder or an s3:// URI")
    options = config.store.model_dump()
    Access.of(options).check(out, "out")
    store = open_store(out, options)
    what = {"service": 1, **identity(config)}
    record = {"run_id": RUN, "status": "running", "identity": what, "config": public(config)}
    claim.claim(store, {**record, "code_version": code_version()})
    return store


def url_of(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that connections come to, until the block ends.

    It sends at once: asyncio sees to that only for sockets it made itself, and an answer in two pieces would otherwise
    wait 40 ms for the client's acknowledgement of the first. There is room for many connections: a kernel that has to
    enlarge a process's table of descriptors, at 64, 128 and 256 of them, lets it wait for up to 30 ms every time.
    """
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):  # more than this process may have
            os.close(fcntl.fcntl(listener, fcntl.F_DUPFD_CLOEXEC, _DESCRIPTORS))
    except OSError as error:
        reason = f"cannot listen on {host} port {port}: {error.strerror or error}"
        raise UsageError(reason, field="port", remedy="choose another, or 0 for a free one") from error
    with listener:
        yield listener


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tokens(path: str) -> dict[str, str]:
    try:
        tokens = read_tokens(Path(path).read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", field="tokens", remedy="check the path") from error
    except (ValueError, BadInput) as error:
        raise UsageError(f"{path}: {error}", field="tokens", remedy="write lines of TENANT TOKEN") from error
    if not tokens:
        raise UsageError(f"{path} names nobody", field="tokens", remedy="write lines of TENANT TOKEN")
    return tokens
