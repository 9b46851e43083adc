"""A proxy that only delays: ``python -m tests.servers.slow_proxy TARGET SECONDS`` says ``ready URL``, ends with stdin.

A process of its own, so that it does not compete with the process that is measured for one interpreter.
"""

from __future__ import annotations

import sys

from tests.servers.proxy import FaultProxy


def main(target: str, seconds: str) -> None:
    with FaultProxy(target) as proxy:
        proxy.fault("latency", seconds=float(seconds))
        print(f"ready {proxy.url}", flush=True)
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
