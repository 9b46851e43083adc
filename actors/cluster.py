"""The Ray cluster a run works on: an existing one by address, or a local one started on demand and ended after."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from actors.fleet_spec import FleetSpec
from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.logs import take_over

log = logging.getLogger("framelane.cluster")

_LOCAL_OBJECT_STORE_BYTES = 512 << 20
_CONNECT_TIMEOUT_S = 10.0

#: Where the names of detached actors live: whoever connects finds them again.
NAMESPACE = "framelane"


@contextmanager
def connected(spec: FleetSpec, presets: int, address: str | None) -> Iterator[None]:
    """Be connected to a cluster with room for ``spec``, whose lanes (but the writers) are there once for each preset.

    An address given, or RAY_ADDRESS, names an existing cluster; otherwise a local one lives as long as the block.
    """
    import ray

    ours = not ray.is_initialized()
    address = address or os.environ.get("RAY_ADDRESS")
    if ours and spec.detached and not address:
        raise UsageError(
            f"fleet {spec.name} is detached, and a local cluster ends with the run",
            field="fleet.detached",
            remedy="give --address of a cluster that stays",
        )
    if ours:
        _connect(spec.reserved(presets)[0], address)
        take_over("ray")
    try:
        if spec.fixed:
            check_room(spec, presets, ray.cluster_resources())  # type: ignore[no-untyped-call]
        yield
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def connection(address: str) -> Iterator[None]:
    """Be connected to the cluster at ``address``, whatever it has room for. UsageError where there is none."""
    import ray

    ours = not ray.is_initialized()
    if ours:
        _connect(0, address)
        take_over("ray")
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _connect(cpus: float, address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A failed call's payload is never fetched: its receipt has told us, and Ray need not tell it again.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    import ray

    if address:
        _check_reachable(address)
        try:
            ray.init(address=address, namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"no Ray cluster at {address}: {error}", field="address", remedy="check it runs"
            ) from error
        return
    # A cluster for this run alone, on loopback: a token would only leave a file in the user's home.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    log.info("starting a local Ray cluster")
    ray.init(
        address="local",
        namespace=NAMESPACE,
        num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)),
        include_dashboard=False,
        object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )


def _check_reachable(address: str) -> None:
    """Refuse HOST:PORT where nothing answers: Ray itself would go on trying."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = f"nothing answers at {address}: {error}"
        raise UsageError(reason, field="address", remedy="check that the cluster runs and can be reached") from error


def check_room(spec: FleetSpec, presets: int, resources: dict[str, float]) -> None:
    """Refuse a fleet that the cluster could never place, instead of waiting for ever."""
    for name, wanted in zip(("CPU", "GPU"), spec.reserved(presets), strict=True):
        there = resources.get(name, 0.0)
        if wanted > there:
            raise UsageError(
                f"fleet {spec.name} reserves {wanted:g} {name}, the cluster has {there:g}",
                field="fleet",
                remedy="choose a smaller fleet, or reserve less with --set fleet....",
            )
    types = {name.partition(":")[2] for name in resources if name.startswith("accelerator_type:")}
    for accelerator in {role.accelerator for role in spec.roles if role.accelerator} - types:
        raise UsageError(
            f"fleet {spec.name} wants {accelerator}, the cluster has {', '.join(sorted(types)) or 'no accelerator'}",
            field="fleet",
            remedy="name an accelerator_type that a node of the cluster has",
        )
