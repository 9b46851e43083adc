"""A whole chaos run: reference runs, then rounds of one job under fire, each verified to the last byte."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gamecraft_core.base.points import FOLDER_VARIABLE
from tests.chaos import verify, workload
from tests.chaos.bucket import Folder, S3Prefix
from tests.chaos.census import Census, Life
from tests.chaos.inject import Injector, Strike
from tests.chaos.nodes import BOUND, Nodes, state_of
from tests.chaos.schedule import Fault, draw, prepared, rounds
from tests.chaos.storage import Storage
from tests.chaos.supervisor import Said, Supervisor
from tests.servers.cluster import ENV

log = logging.getLogger("chaos")

Reference = Mapping[int, Mapping[str, verify.Row]]

DEGREES = (2, 1)
_HEIGHT, _WIDTH = 32, 48
_STEP_TIMEOUT_S = 180.0
_QUIET_TIMEOUT_S = 30.0
_POLL_S = 0.1
_MOST_EXTRA = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for. ``minutes`` bounds the faults; what runs then is finished and verified."""

    faults: int
    seed: int
    out: Path
    minutes: float
    sessions: int
    per_round: int


@dataclass(slots=True)
class Round:
    """One job on one output, what was done to it, and what came of it."""

    number: int
    output: str
    detached: bool
    began: float = 0.0
    ended: float = 0.0
    verified: float = 0.0
    problems: list[str] = field(default_factory=list)
    readers: dict[str, str] = field(default_factory=dict)
    repaired: list[dict[str, Any]] = field(default_factory=list)
    starts: list[tuple[int, float, float, int]] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)


@dataclass(slots=True)
class Play:
    """Everything of one chaos run. Enter ``run`` once."""

    settings: Settings
    nodes: Nodes
    storage: Storage
    injector: Injector
    work: workload.Workload
    schedule: tuple[Fault, ...]
    rounds: list[Round] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unstruck: list[Fault] = field(default_factory=list)
    _supervisor: Supervisor | None = None

    @classmethod
    def of(cls, settings: Settings, folder: Path) -> Play:
        """``folder`` is short-lived and has a short path: sockets live in it."""
        points = folder / "points"
        points.mkdir()
        storage = Storage(folder / "s3")
        # The store's keys; its endpoint travels with the lanes' options.
        keys = {name: value for name, value in storage.server.env.items() if value}
        nodes = Nodes(folder / "ray", {FOLDER_VARIABLE: str(points), **keys})
        schedule = draw(settings.seed, settings.faults)
        work = workload.make(settings.out / "inputs", settings.seed, settings.sessions)
        play = cls(settings, nodes, storage, Injector(nodes, storage, points), work, schedule)
        play.injector.driver = lambda: play._supervisor.pid if play._supervisor else None
        play.injector.serving = lambda: play._supervisor is not None and play._supervisor.serving.is_set()
        return play

    @property
    def struck(self) -> list[Strike]:
        return self.injector.struck

    async def run(self) -> None:
        """All rounds. What went wrong is in ``problems``; nothing is left running."""
        deadline = time.monotonic() + self.settings.minutes * 60
        try:
            reference, _ = await asyncio.gather(self._references(), self.storage.start())
            await self._rounds(reference, deadline)
        finally:
            if left := await self.nodes.close():
                self.problems.append(f"processes outlived the cluster: {left}")
            await self.storage.close()

    async def _rounds(self, reference: Reference, deadline: float) -> None:
        """One after the other; a few more for what could not strike in its own."""
        bucket = self.storage.server.new_bucket()
        queue = list(rounds(self.schedule, self.settings.per_round))
        most = len(queue) + _MOST_EXTRA
        while (queue or self.injector.waiting) and time.monotonic() < deadline and len(self.rounds) < most:
            faults = [*self.injector.waiting, *(queue.pop(0) if queue else ())]
            self.injector.waiting.clear()
            number = len(self.rounds) + 1
            made = Round(number, f"s3://{bucket}/round-{number}", detached=number % 3 != 0)
            self.rounds.append(made)
            await self._round(made, prepared(faults), reference, deadline)
            if not queue:
                self.injector.disarm()
        self.injector.disarm()
        self.unstruck = [*self.injector.waiting, *self.injector.missed, *(fault for each in queue for fault in each)]

    async def _round(self, made: Round, faults: Sequence[Fault], reference: Reference, deadline: float) -> None:
        before = len(self.struck)
        log.info("round %d: %d faults, %s lanes", made.number, len(faults), "detached" if made.detached else "own")
        self.injector.waiting.extend(faults)
        made.began = time.time()
        try:
            try:
                await self._under_fire(made, deadline)
            finally:
                made.ended = time.time()
                await self._quiet(made)
            await self._verify(made, reference)
        except (RuntimeError, TimeoutError) as error:
            made.problems.append(f"{type(error).__name__}: {error}")
        made.verified = time.time()
        self.problems += [f"round {made.number}: {problem}" for problem in made.problems]
        struck, what = len(self.struck) - before, "; ".join(made.problems[:3]) or "whole"
        log.info("round %d: %d struck, %d starts: %s", made.number, struck, len(made.starts), what)

    async def _under_fire(self, made: Round, deadline: float) -> None:
        """The job, from its first start until it has finished, and the faults meanwhile."""
        supervisor = self._supervisor = self._job(made)
        made.said, made.starts = supervisor.said, supervisor.ends
        census = Census(self.nodes, self.injector, lambda: supervisor.pid, made.lives)
        while self.injector.waiting and not self.injector.waiting[0].puts:
            await self.injector.carry_out(self.injector.waiting.popleft())
        watching = asyncio.create_task(census.watch())
        job = asyncio.create_task(supervisor.run())
        hurting = asyncio.create_task(self.injector.go(lambda: job.done() or time.monotonic() > deadline))
        try:
            await self._finished(job, deadline)
            await hurting
            await self.injector.calm()
        finally:
            for task in (job, hurting, watching):
                task.cancel()
            ended = await asyncio.gather(job, hurting, watching, return_exceptions=True)
            self._supervisor = None
        census.look()
        made.problems += [f"the harness broke: {each!r}" for each in ended[1:] if isinstance(each, Exception)]

    def _job(self, made: Round) -> Supervisor:
        fleet = workload.fleet(self.settings.out, *DEGREES)
        command = workload.command(self.work, made.output, fleet, self.nodes.address, detached=made.detached)
        env = {**_plain_env(), **self.storage.env, FOLDER_VARIABLE: str(self.injector.points)}
        return Supervisor(command, env, self.settings.out / f"round-{made.number}.log")

    async def _finished(self, job: asyncio.Task[int], deadline: float) -> None:
        """Wait for the job; one that does not end long after the last fault could have struck hangs."""
        left = max(deadline - time.monotonic(), 0.0) + _STEP_TIMEOUT_S
        done, _ = await asyncio.wait({job}, timeout=left)
        if not done:
            raise TimeoutError(f"the job did not end in {left:.0f} s")
        job.result()

    async def _quiet(self, made: Round) -> None:
        """The fleet is gone, whoever had to end it, and with it every process that was stopped."""
        if made.detached:
            await _call(["tests.chaos.dismiss", self.nodes.address], _plain_env())
        deadline = time.monotonic() + _QUIET_TIMEOUT_S
        while (left := self.nodes.actors()) and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
        if left:
            made.problems.append(f"actors outlived their run: {left}")
        if stopped := [pid for pid in self.injector.stopped if state_of(pid) == "T"]:
            made.problems.append(f"stopped ranks were never found: {stopped}")

    async def _verify(self, made: Round, reference: Reference) -> None:
        env = {**_plain_env(), **self.storage.server.env}
        doctor = ["jobs.doctor", "--out", made.output, "--min-age", "0", "--json"]
        repaired = json.loads(await _call([*doctor, "--repair"], env, ok=(0, 3)))
        made.repaired = [{name: each[name] for name in ("kind", "count", "mended")} for each in repaired["findings"]]
        healthy = json.loads(await _call([*doctor, "--verify"], env, ok=(0, 3)))
        if not healthy["healthy"] or healthy["findings"]:
            made.problems.append(f"after its repair the doctor finds {healthy['findings']}")
        chunks = self.work.chunks
        shards = -(-len(self.work.rows) // workload.ROWS_PER_SHARD)
        expected = verify.Expected(chunks, self.work.torn, shards, reference)
        found = await asyncio.to_thread(verify.problems, S3Prefix(made.output, self.storage.server.client), expected)
        made.problems += found
        sizes = {name: (count * workload.CHUNK_FRAMES, _HEIGHT, _WIDTH) for name, count in chunks.items()}
        wanted = self.settings.out / "expected.json"
        wanted.write_text(json.dumps(sizes))
        answer = self.settings.out / "readers.json"
        await _call(["tests.chaos.readers", made.output, str(wanted), str(answer), self.nodes.address], env)
        made.readers = json.loads(answer.read_text())
        made.problems += [f"{name}: {what}" for name, what in made.readers.items() if what != "ok"]

    async def _references(self) -> Reference:
        """Start the cluster and run the manifest undisturbed at each degree, where OUT does not hold that already."""
        await self.nodes.start()
        log.info("undisturbed runs at degrees %s", DEGREES)
        await asyncio.gather(*(self._reference(degree) for degree in DEGREES))
        return {degree: verify.published(Folder(str(self._reference_folder(degree)))) for degree in DEGREES}

    async def _reference(self, degree: int) -> None:
        fleet = workload.fleet(self.settings.out, degree, lanes=1, name=f"reference-sp{degree}")
        folder = self._reference_folder(degree)
        command = workload.command(self.work, str(folder), fleet, self.nodes.address, detached=False)
        await _call(command, _plain_env(), ok=(3,) if self.work.torn else (0,), timeout=2 * _STEP_TIMEOUT_S)

    def _reference_folder(self, degree: int) -> Path:
        return self.settings.out / f"reference-sp{degree}"


def _plain_env() -> dict[str, str]:
    """This process's environment for a child that uses the cluster, without what belongs to other set-ups."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "FRAMELANE_"))}
    return {**kept, **ENV, "OMP_NUM_THREADS": "1", "AWS_CONFIG_FILE": os.devnull}


async def _call(
    command: Sequence[str], env: Mapping[str, str], ok: Sequence[int] = (0,), timeout: float = _STEP_TIMEOUT_S
) -> str:
    """The standard output of one of our modules. RuntimeError where its status is not among ``ok``."""
    process = await asyncio.create_subprocess_exec(
        *BOUND,
        sys.executable,
        "-m",
        *command,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode not in ok:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{err.decode(errors='replace')[-2000:]}")
    return out.decode()
