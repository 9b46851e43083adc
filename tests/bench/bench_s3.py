"""What writing to S3 costs a job: 200 sessions to a server 20 ms away, against the same job to a local folder.

The makespan is the time from the fleet being ready to the last closing file being stored. The two kinds of run take
turns, and ``writing_cost`` is (S3 - folder) / folder of the best of each: what else the machine does only adds. The S3
server and the proxy run on this machine too, so their share of its cores counts as cost of writing.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jobs.synthesize import main as synthesize
from tests.bench.harness import Bench
from tests.servers import s3
from tests.servers.child import ServerChild
from tests.servers.cluster import local_cluster

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "jobs" / "demo" / "inputs" / "harbour.png"

SESSIONS = 200
PAIRS = 2
ADDED_S = 0.020
GOAL = 0.05


class _Ready(logging.Handler):
    """Notes when the fleet was ready: the job logs its metrics' address then."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("metrics at "):
            self.at = time.perf_counter()


def main() -> int:
    config = {"sessions": SESSIONS, "pairs": PAIRS, "added_seconds_each_way": ADDED_S / 2}
    server = "moto" if s3.missing_for_rgw() else "rgw"
    bench = Bench("s3", {**config, "server": server, "fleet": "laptop"})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp")))
        started = stack.enter_context((s3.moto if server == "moto" else s3.rgw)(folder / server))
        os.environ.update({name: value for name, value in started.env.items() if name != "AWS_ENDPOINT_URL"})
        command = [sys.executable, "-m", "tests.servers.slow_proxy", started.endpoint, str(ADDED_S / 2)]
        proxy = stack.enter_context(ServerChild(command, folder / "proxy.log"))
        stack.enter_context(local_cluster(ROOT))
        manifest = _manifest(folder)
        local, remote = [], []
        for number in range(PAIRS):
            local.append(_makespan(manifest, str(folder / f"out-{number}")))
            remote.append(_makespan(manifest, started.new_root(), "--set", f"store.endpoint_url={proxy.url}"))
    bench.figure("makespan_folder", local, "s")
    bench.figure("makespan_s3", remote, "s")
    bench.figure("sessions_per_second_s3", SESSIONS / min(remote), "1/s", better="higher")
    bench.figure("writing_cost", min(remote) / min(local) - 1, "1", goal=GOAL)
    return bench.finish()


def _manifest(folder: Path) -> Path:
    path = folder / "manifest.jsonl"
    row = {"image": str(IMAGE), "prompt": "A harbour.", "actions": "w"}
    path.write_text(
        "".join(json.dumps(row | {"session_id": f"s{seed}", "seed": seed}) + "\n" for seed in range(SESSIONS))
    )
    return path


def _makespan(manifest: Path, out: str, *options: str) -> float:
    """Seconds from the fleet being ready to the job's end."""
    argv = ["--preset", "tiny-gamecraft", "--manifest", str(manifest), "--out", out, "--metrics-port", "0", *options]
    with _listening() as ready:
        status = synthesize(argv)
        ended = time.perf_counter()
    if status != 0:
        raise RuntimeError(f"the job to {out} ended with status {status}")
    return ended - ready.at


@contextmanager
def _listening() -> Iterator[_Ready]:
    handler = _Ready()
    logger = logging.getLogger("framelane.run")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
