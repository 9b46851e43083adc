"""The service on Ray Serve: one replica is web application, engine and sessions, as one process is elsewhere.

    python -m jobs.serve --on serve …                            deploys it, and takes it down in order
    serve run jobs.gateway:build preset=… out=… tokens=…         or ``import_path`` and ``args`` of a RayService

Invariants: of all the replicas that an output has for a moment, one runs its sessions; whatever happens to it, the next
one takes up from the store what was accepted. Why it is one replica: ``infra/decisions/0013``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from starlette.types import ASGIApp

from gamecraft_core.base import logs
from gamecraft_core.base.errors import FramelaneError, LaneLost, UsageError
from gamecraft_core.base.preset import Strict
from jobs.config import RunConfig, resolve, with_endpoint
from jobs.overrides import explain
from jobs.service import RUN, Place, Running, claimed, listening, url_of
from jobs.signals import Stopper
from orchestrator.http.gate import Rules

log = logging.getLogger("framelane.gateway")

#: Of the application and of its only deployment: what ``serve status`` shows.
APPLICATION, DEPLOYMENT = "framelane", "gateway"

#: Serve counts a watched stream as one request until it ends, and lets five in by default. How many sessions there may
#: be is decided by their own limits.
_MAX_REQUESTS = 100_000
#: After the engine's own grace: taking the fleet down, and telling the last clients.
_GOODBYE_S = 15.0
#: Serve takes whatever is sent, and keeps it for who reads slowly: this much at most.
_SOCKET_BYTES = 32 << 20
_LOOK_S = 1.0


class Arguments(Strict):
    """``args`` of the application in a Serve configuration: what ``python -m jobs.serve`` has as options."""

    preset: str = Field(description="a built-in preset's name, or a preset's YAML file")
    out: str = Field(description="folder or URI where sessions and videos are kept; every node sees it")
    fleet: str = Field(default="laptop", description="a built-in fleet's name, or a fleet's YAML file")
    settings: tuple[str, ...] = Field(default=(), description="overrides, A.B=C each")
    host: str = Field(default="0.0.0.0", description="what Serve's proxies listen on: not this machine, then tokens")
    tokens: str | None = Field(default=None, description="file of lines TENANT TOKEN")
    origins: tuple[str, ...] = Field(default=(), description="of pages elsewhere that may use it")


def build(arguments: Mapping[str, Any]) -> Any:
    """The Serve application. Raises UsageError for wrong arguments; whatever is large or slow waits for the replica."""
    try:
        given = Arguments.model_validate(dict(arguments))
    except ValidationError as error:
        raise explain(error, Arguments, "the application's args") from error
    if not (Path(given.out).is_absolute() or "://" in given.out):
        raise UsageError(f"{given.out} is relative, and replicas have no folder", field="out", remedy="give all of it")
    config = resolve(given.preset, given.fleet, given.settings)
    return bound(config, given.out, Place(given.host, 0, given.tokens, given.origins).rules())


def bound(config: RunConfig, out: str, rules: Rules) -> Any:
    """The application of a configuration that is already resolved."""
    from ray import serve

    deployment: Any = serve.deployment(
        serve.ingress()(Gateway),
        name=DEPLOYMENT,
        num_replicas=1,
        max_ongoing_requests=_MAX_REQUESTS,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=config.limits.grace_seconds + _GOODBYE_S,
    )
    rules = replace(rules, max_socket_bytes=_SOCKET_BYTES)
    return deployment.bind(with_endpoint(config, os.environ), out, rules)


class Gateway:
    """The replica. While it has no lanes yet it answers already, with 503 and when to come again."""

    def __init__(self, config: RunConfig, out: str, rules: Rules) -> None:
        logs.setup(config.telemetry.logs, run=RUN)
        self._rules = rules
        self._store = claimed(config, out)
        self._running = Running(config, self._store)
        loop = asyncio.get_running_loop()
        self._began: asyncio.Future[None] = loop.create_future()
        self._end: asyncio.Future[None] = loop.create_future()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._running.app(self._rules, self._lifespan)

    async def ready(self) -> None:
        """Until lanes are warm. Raises what the start failed of."""
        await asyncio.wait({self._work, self._began}, return_when=asyncio.FIRST_COMPLETED)
        self.check_health()

    def check_health(self) -> None:
        """Serve asks now and then, and replaces a replica that has failed."""
        if self._work.done() and not self._work.cancelled():
            self._work.result()

    async def drain(self) -> None:
        """Accept nothing more, end every stream, make durable what is denoised, give the lanes back."""
        self._leave()
        await asyncio.wait({self._work})

    @asynccontextmanager
    async def _lifespan(self, app: ASGIApp) -> AsyncIterator[None]:
        self._work = asyncio.create_task(self._serve())
        yield
        await self.drain()

    async def _serve(self) -> None:
        from actors.seat import seated

        async with seated(self._store.root, self._leave):
            await self._running.on_fleet(self._end, lambda _: self._began.set_result(None))

    def _leave(self) -> None:
        """Once there are lanes there is something to finish; before, the start is called off."""
        if not self._began.done():
            self._work.cancel()
        elif not self._end.done():
            self._end.set_result(None)


def serve(config: RunConfig, out: str, place: Place, address: str | None) -> int:
    """Deploy on the cluster, and stay until told to stop: then drain, and delete. The exit status."""
    logs.setup(config.telemetry.logs, run=RUN)
    place.rules()  # refused, if it is, before anything runs
    config = with_endpoint(config, os.environ)
    asyncio.run(_on_cluster(config, claimed(config, out).root, place, address))
    return 0


async def _on_cluster(config: RunConfig, out: str, place: Place, address: str | None) -> None:
    from actors.cluster import connected

    with connected(config.fleet, len(config.presets), address):
        from ray import serve

        place, ours = _started(place)
        stopper = Stopper()
        stopper.listen()
        handle = None
        try:
            target = serve.RunTarget(bound(config, out, place.rules()), name=APPLICATION, route_prefix="/")
            (handle,) = serve.run_many([target], wait_for_applications_running=False)
            await _until_ready(handle)
            log.info("ready: %s", url_of(place.host, place.port))
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.info("draining")
        finally:
            if handle is not None:
                await _taken_down(handle, config.limits.grace_seconds + _GOODBYE_S)
            if ours:
                serve.shutdown()  # type: ignore[no-untyped-call]
            stopper.hand_back()


def _started(place: Place) -> tuple[Place, bool]:
    """Where Serve listens, and whether it does so for us: one that was there already listens where it did."""
    from ray import serve
    from ray.serve.context import _get_global_client  # public answers do not tell where the proxies listen

    ours = _get_global_client(raise_if_no_controller_running=False) is None
    if ours:
        with listening(place.host, place.port) as probe:
            place = replace(place, port=probe.getsockname()[1])
        serve.start(http_options={"host": place.host, "port": place.port})
    client: Any = _get_global_client()
    options = client.http_config
    if (options.host, options.port) != (place.host, place.port):
        log.warning("Ray Serve listens on %s port %d already", options.host, options.port)
    return replace(place, host=options.host, port=options.port), ours


async def _until_ready(handle: Any) -> None:
    from ray import serve
    from ray.exceptions import RayTaskError

    ready = asyncio.ensure_future(_answer(handle.ready.remote()))
    try:
        while not ready.done():
            await asyncio.wait({ready}, timeout=_LOOK_S)
            told = serve.status().applications[APPLICATION]
            if told.status == "DEPLOY_FAILED":
                raise LaneLost(f"Ray Serve could not deploy it: {told.message}")
        await ready
    except RayTaskError as error:
        if isinstance(error.cause, FramelaneError):
            raise error.cause from error
        raise
    finally:
        ready.cancel()


async def _answer(response: Any) -> None:
    await response


async def _taken_down(handle: Any, seconds: float) -> None:
    """Drain the replica, if it answers within ``seconds``, and delete the application."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        async with asyncio.timeout(seconds):
            await handle.drain.remote()
    except (RayError, RayServeException, TimeoutError) as error:
        log.warning("the replica does not drain: %s", error or "timeout")
    serve.delete(APPLICATION)
