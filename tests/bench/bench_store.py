"""Conditional puts a second, the operation a commit consists of: into a folder, and to the fast S3 server."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gamecraft_core.base.store import Store, open_store
from tests.bench.harness import Bench
from tests.servers import s3

ROUNDS = 5
PUTS = 100
THREADS = 8
VALUE_BYTES = 4096


def main() -> int:
    bench = Bench("store", {"puts": PUTS, "threads": THREADS, "value_bytes": VALUE_BYTES, "rounds": ROUNDS})
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, s3.moto(Path(folder) / "moto") as server:
        os.environ.update(server.env)
        measure(bench, "folder", open_store(str(Path(folder) / "store")))
        measure(bench, "moto", open_store(server.new_root(), {"endpoint_url": server.endpoint}))
    return bench.finish()


def measure(bench: Bench, name: str, store: Store) -> None:
    """Note the rates of one writer and of THREADS writers, every put to a new key."""
    value = os.urandom(VALUE_BYTES)
    keys = (f"commits/{number:06}" for number in itertools.count())
    store.put_if_absent("warm-up", value)
    for threads in (1, THREADS):
        rates = []
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(ROUNDS):
                batch = list(itertools.islice(keys, PUTS))
                began = time.perf_counter()
                won = list(pool.map(lambda key: store.put_if_absent(key, value), batch))
                rates.append(PUTS / (time.perf_counter() - began))
                assert all(won)
        bench.figure(f"{name}_conditional_puts_{threads}_threads", rates, "1/s", better="higher")


if __name__ == "__main__":
    sys.exit(main())
