"""The README's walkthrough of a cluster, literally, on several nodes of this machine; and a job that outlives them.

Nodes are stopped by pid: ``ray stop`` would end every Ray on the host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.ray.runs import INPUTS, ROOT, SMALL, Finished, manifest, row
from tests.servers.cluster import ENV, processes_using

pytestmark = pytest.mark.ray

_DEADLINE_S = 300.0
#: The walkthrough's blocks, which follow one another; they are marked ``bash``.
START, *STEPS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
API = "http://127.0.0.1:8265"


#: Brings up the loopback of the network that it runs in, says so, and holds the network until its stdin closes.
_HOLDER = """
import fcntl, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
print("up", flush=True)
sys.stdin.read()
"""


@contextmanager
def own_network() -> Iterator[list[str]]:
    """What commands are put behind to run in a network of their own, since others hold Ray's usual ports here.

    Nothing, where that is not allowed.
    """
    command = ["unshare", "--net", sys.executable, "-c", _HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        up = holder.stdout.readline() == "up\n"
        try:
            yield ["nsenter", "--target", str(holder.pid), "--net", "--"] if up else []
        finally:
            holder.stdin.close()


@dataclass(frozen=True)
class Nodes:
    """The walkthrough's cluster: all of it lives in ``folder``, and behind ``network``."""

    folder: Path
    env: dict[str, str]
    network: list[str]
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.network, "bash", "-euc", command],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def node_of(self, actor: str) -> int:
        """The raylet of a node that holds such an actor."""
        pid = next(pid for pid, command in processes_using(self.folder).items() if command.startswith(f"ray::{actor}"))
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    def submit(self, *arguments: str) -> subprocess.Popen[str]:
        command = [*self.network, sys.executable, "-m", "jobs.submit", "--address", API, *arguments]
        self.children.append(
            subprocess.Popen(
                command, cwd=ROOT, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        return self.children[-1]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    folder = Path(tempfile.mkdtemp(prefix="fl-walk-", dir="/tmp"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "RAY_"))}
    env = {**kept, **ENV, "RAY_TMPDIR": str(folder), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    with own_network() as network:
        made = Nodes(folder, env | {"RAY_worker_niceness": "0"}, network)
        try:
            done = made.run(START)
            assert done.returncode == 0, done.stdout + done.stderr
            yield made
        finally:
            for child in made.children:
                child.kill()
                child.communicate()
            for pid in processes_using(folder):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(lambda: not processes_using(folder), "every process of the cluster is gone")
            shutil.rmtree(folder, ignore_errors=True)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"did not come about in {_DEADLINE_S:.0f} s: {what}"
        time.sleep(0.1)


def synthesis(folder: Path, rows: Sequence[Mapping[str, Any]], fleet: str, out: Path | None = None) -> list[str]:
    """The job and its options; its manifest is written to ``folder``."""
    job = ["synthesize", "--preset", "tiny-gamecraft", "--fleet", fleet, "--metrics-port", "0"]
    job += ["--manifest", str(manifest(folder, rows)), "--out", str(out or folder / "out")]
    return job + [part for setting in SMALL for part in ("--set", setting)]


@pytest.mark.parametrize("command", STEPS)
def test_the_walkthrough_works_as_it_stands(nodes: Nodes, command: str) -> None:
    if "doctor" not in command:
        (target,) = re.findall(r'--out "?(?:\$PWD/)?(out/\w+)', command)
        shutil.rmtree(ROOT / target, ignore_errors=True)
    done = nodes.run(f"source .venv/bin/activate\n{command}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_job_is_stopped_and_resumed_while_nodes_come_and_go(nodes: Nodes, tmp_path: Path) -> None:
    """Another process submits; what it made before the stop stays, and a node that goes is made up for."""
    rows = [row(f"short-{number}", "w", seed=number) for number in range(4)]
    rows += [row(f"long-{number}", "w*40", seed=number) for number in range(6)]
    out = tmp_path / "out"
    job = synthesis(tmp_path, rows, "demo")

    def files(folder: str) -> int:
        return sum(path.is_file() for path in (out / folder).rglob("*"))

    first = nodes.submit(*job)
    until(lambda: files("_commits"), "a session is committed")
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=_DEADLINE_S)
    assert first.returncode == 4, said
    committed, staged = files("_commits"), files("_staging")
    assert 0 < committed < len(rows), said

    second = nodes.submit(*job)
    until(lambda: files("_staging") > staged, "the resumed job goes on")
    assert nodes.run("source .venv/bin/activate\nray start --address=127.0.0.1:6379 --num-cpus=4").returncode == 0
    os.kill(nodes.node_of("DecodeActor"), signal.SIGKILL)
    said, _ = second.communicate(timeout=_DEADLINE_S)
    assert second.returncode == 0, said
    assert " lost: " in said
    found = Finished(0, out).rows()
    assert {name: len(each["chunks"]) for name, each in found.items()} == {
        each["session_id"]: 40 if each["session_id"].startswith("long") else 1 for each in rows
    }
    assert nodes.run(f"source .venv/bin/activate\npython -m jobs.doctor --out {out} --verify").returncode == 0


def test_a_jobs_own_exit_status_comes_home_and_packed_inputs_are_found(nodes: Nodes, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    shutil.copy(INPUTS / "harbour.png", inputs)
    rows = [row("good", "w", image="harbour.png"), row("bad", "jump", image="harbour.png")]
    job = synthesis(inputs, rows, "laptop", out=tmp_path / "out")
    sent = nodes.submit("--name", "packed", "--pack", str(inputs), "--detach", *job)
    assert sent.communicate(timeout=_DEADLINE_S)[0].splitlines()[-1] == "packed"
    inputs.rename(tmp_path / "elsewhere")
    followed = nodes.submit("--follow", "packed")
    said, _ = followed.communicate(timeout=_DEADLINE_S)
    assert followed.returncode == 3, said
    assert "framelane.progress" in said
    assert set(Finished(3, tmp_path / "out").rows()) == {"good"}


def test_a_job_whose_process_dies_is_submitted_again_and_goes_on(nodes: Nodes, tmp_path: Path) -> None:
    rows = [row("short", "w"), *(row(f"long-{number}", "w*30", seed=number) for number in range(3))]
    out = tmp_path / "out"
    job = synthesis(tmp_path, rows, "laptop")
    sent = nodes.submit("--name", "again", "--resubmit", "1", *job)
    until(lambda: list((out / "_commits").glob("*.parquet")), "a session is committed")
    run_id = json.loads((out / "run.json").read_text())["run_id"]
    os.kill(int(nodes.run(f"pgrep -f '^python -m jobs.submitted .*{out}'").stdout), signal.SIGKILL)
    said, _ = sent.communicate(timeout=_DEADLINE_S)
    assert sent.returncode == 0, said
    assert "submitted again-2" in said
    assert set(Finished(0, out).rows()) == {each["session_id"] for each in rows}
    assert json.loads((out / "run.json").read_text())["run_id"] == run_id, "it is the same run"
