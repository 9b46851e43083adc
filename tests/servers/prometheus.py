"""A real Prometheus for tests, with our scrape configuration and rules, and whatever it is told to scrape."""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.servers.child import free_port

PROMETHEUS = Path(__file__).resolve().parents[2] / "infra" / "prometheus"


class Prometheus:
    """A running server's HTTP interface, and the files that tell it its targets."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder

    def scrape(self, job: str, run: str, target: str) -> None:
        """From now on scrape ``target`` (host:port) in the scrape configuration's ``job``."""
        path = self._folder / f"{job}-{run}.json"
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps([{"targets": [target], "labels": {"run": run}}]))
        beside.replace(path)

    def get(self, path: str, **query: str) -> Any:
        """The answer's ``data``; None while the server does not answer."""
        with suppress(OSError), urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}") as answer:
            return json.load(answer)["data"]
        return None

    def ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready") as answer:
            return bool(answer.status == 200)
        return False

    def values(self, query: str) -> list[float]:
        return [float(each["value"][1]) for each in self.get("/api/v1/query", query=query)["result"]]

    def series(self, query: str, seconds: float, step: float = 1.0) -> list[list[float]]:
        """What a dashboard would draw of the last ``seconds``: the finite values of each series that has any."""
        now = time.time()
        start = now - step * math.ceil(seconds / step)  # whole steps, or what has only just come is not drawn
        found = self.get("/api/v1/query_range", query=query, start=f"{start:.3f}", end=f"{now:.3f}", step=f"{step:g}")
        drawn = [[float(value) for _, value in each["values"]] for each in found["result"]]
        return [kept for each in drawn if (kept := [value for value in each if math.isfinite(value)])]


@contextmanager
def prometheus(folder: Path, program: str, interval: str = "200ms") -> Iterator[Prometheus]:
    """Run ``program`` with our local configuration, but looking every ``interval``; its data are in ``folder``."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.local.yaml").read_text())
    config["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    config["rule_files"] = [str(PROMETHEUS / each) for each in config["rule_files"]]
    for scrape in config["scrape_configs"]:
        del scrape["static_configs"]
        files = [str(folder / f"{scrape['job_name']}-*.json")]
        scrape["file_sd_configs"] = [{"files": files, "refresh_interval": "1s"}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{free_port()}"
    command = [program, f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}"]
    command.append(f"--web.listen-address={urllib.parse.urlsplit(url).netloc}")
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        server = Prometheus(url, folder)
        try:
            while not server.ready():
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            yield server
        finally:
            process.terminate()
            process.wait(60)
