"""End every detached fleet of a cluster: ``python -m tests.chaos.dismiss ADDRESS``."""

from __future__ import annotations

import asyncio
import logging
import sys


async def main(address: str) -> None:
    import ray

    from actors.adopt import dismiss, standing
    from actors.cluster import NAMESPACE

    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    for fleet in standing():
        await dismiss(fleet)
    ray.shutdown()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
