"""The cluster launcher's file, against Ray's own schema and EC2's; and the script that hears spot notices."""

from __future__ import annotations

import copy
import http.server
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from jobs.config import load_fleet
from tests.infra import documents, pods
from tests.infra.documents import INFRA, ROOT, Document

VALIDATES = ("infra/ray/cluster.yaml",)

(CLUSTER,) = documents.read((INFRA / "ray" / "cluster.yaml").read_text("utf-8"))
NOTICE = INFRA / "ray" / "spot-notice.sh"
TYPES = CLUSTER["available_node_types"]


def prepared(config: Document) -> Document:
    """``config`` as ``ray up`` completes and checks it."""
    made: Document = prepare_config(copy.deepcopy(config))
    validate_config(made)
    return made


def test_ray_takes_it() -> None:
    made = prepared(CLUSTER)
    assert made["setup_commands"] == made["head_setup_commands"] == made["worker_setup_commands"] == []
    assert made["max_workers"] == made["available_node_types"]["gpu"]["max_workers"]
    assert made["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ((), "idle_timeout_minute", 15),
        ((), "max_workers", "8"),
        (("docker",), "worker_images", "x"),
        (("auth",), "ssh_users", "x"),
        (("available_node_types", "gpu"), "max_worker", 8),
        (("available_node_types", "gpu", "resources"), "GPU", "8"),
        ((), "head_node_type", "heads"),
        (("available_node_types", "gpu"), "min_workers", 9),
    ],
)
def test_ray_refuses_what_is_wrong(where: tuple[str, ...], key: str, value: Any) -> None:
    wrong = copy.deepcopy(CLUSTER)
    inner = wrong
    for part in where:
        inner = inner[part]
    inner[key] = value
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        prepared(wrong)


def test_nodes_are_what_they_should_be() -> None:
    head, gpu = TYPES["head"], TYPES["gpu"]
    assert CLUSTER["head_node_type"] == "head"
    assert "InstanceMarketOptions" not in head["node_config"], "the head is not a spot node"
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    for each in (head, gpu):
        assert each["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    for name in ("8xa100-throughput", "8xa100-elastic"):
        cpus, gpus = load_fleet(name).reserved()
        assert cpus <= gpu["resources"]["CPU"]
        assert gpus <= gpu["resources"]["GPU"]
    assert CLUSTER["idle_timeout_minutes"] * 60 >= load_fleet("8xa100-elastic").elastic.idle_seconds


@lru_cache
def run_instances() -> Any:
    """What EC2's call takes that Ray makes with a ``node_config``, passed on unseen."""
    return botocore.session.Session().get_service_model("ec2").operation_model("RunInstances").input_shape


def refused(node: Document) -> str:
    report: str = ParamValidator().validate({**node, "MinCount": 1, "MaxCount": 1}, run_instances()).generate_report()
    return report


@pytest.mark.parametrize("name", ["head", "gpu"])
def test_aws_takes_the_nodes(name: str) -> None:
    node = TYPES[name]["node_config"]
    assert refused(node) == ""
    assert 'Unknown parameter in input: "InstanceTypes"' in refused({**node, "InstanceTypes": "x"})
    assert "MarketTyp" in refused({**node, "InstanceMarketOptions": {"MarketTyp": "spot"}})


def test_images_are_those_of_kubernetes() -> None:
    images = {each.container["image"] for each in pods.groups(documents.kuberay())}
    assert images == {CLUSTER["docker"]["head_image"], CLUSTER["docker"]["worker_image"]}
    assert CLUSTER["docker"]["head_image"].endswith("-cpu")


def test_ray_starts_with_options_that_it_has() -> None:
    known = {name for option in start.params for name in option.opts}
    commands = [*CLUSTER["head_start_ray_commands"], *CLUSTER["worker_start_ray_commands"]]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    for command in starts:
        assert set(re.findall(r" (--[a-z-]+)", command)) <= known
    assert "--dashboard-host=127.0.0.1" in starts[0], "Ray's dashboard runs code for whoever reaches it"
    assert "--env RAY_AUTH_MODE=token" in CLUSTER["docker"]["run_options"]
    assert any(path.endswith("/.ray/auth_token") for path in CLUSTER["file_mounts"])


def test_the_script_is_brought_and_started() -> None:
    (there,) = [place for place, source in CLUSTER["file_mounts"].items() if (ROOT / source) == NOTICE]
    assert os.access(NOTICE, os.X_OK)
    assert [command for command in CLUSTER["worker_start_ray_commands"] if there in command]


class Metadata(http.server.BaseHTTPRequestHandler):
    """EC2's metadata service, version 2: a token is asked for by PUT, and a notice is 404 until there is one."""

    asked = 0
    notice_at = 3

    def do_PUT(self) -> None:
        allowed = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200 if allowed else 400, b"token")

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.path != "/latest/meta-data/spot/instance-action" or self.headers["X-aws-ec2-metadata-token"] != "token":
            self.answer(401, b"")
        elif self.asked < self.notice_at:
            self.answer(404, b"")
        else:
            self.answer(200, b'{"action": "terminate", "time": "2026-01-01T00:00:00Z"}')

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def metadata() -> Iterator[str]:
    """The service's address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def run_under_notice(tmp_path: Path, url: str, command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "METADATA": url, "PERIOD_S": "0.05"}
    words = [str(NOTICE), "bash", "-c", command]
    return subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)


def test_a_spot_notice_is_a_drain_notice(tmp_path: Path) -> None:
    with metadata() as url:
        ray = "trap 'echo draining; exit 3' TERM; while :; do sleep 0.05; done"
        done = run_under_notice(tmp_path, url, ray)
    assert (done.stdout, done.returncode) == ("draining\n", 3), done.stderr
    assert Metadata.asked == Metadata.notice_at, "it asks again until there is a notice, and then no more"


def test_without_a_notice_nothing_is_stopped(tmp_path: Path) -> None:
    done = run_under_notice(tmp_path, "http://127.0.0.1:1", "trap 'echo draining' TERM; sleep 0.3; echo ended; exit 5")
    assert (done.stdout, done.returncode) == ("ended\n", 5), done.stderr


def test_ray_has_time_to_drain_and_no_more_than_aws_gives() -> None:
    (command,) = [each for each in CLUSTER["worker_start_ray_commands"] if "ray start" in each]
    (drain,) = re.findall(r"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=(\d+) ", command)
    assert 60 <= int(drain) <= 110
    assert " --block " in command
