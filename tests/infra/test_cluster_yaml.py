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
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import drain_node, start

from jobs.config import load_fleet
from tests.infra import documents, pods
from tests.infra.documents import INFRA, ROOT, Document

VALIDATES = ("ray/cluster.yaml",)

(CLUSTER,) = documents.read((INFRA / "ray" / "cluster.yaml").read_text("utf-8"))
NOTICE = INFRA / "ray" / "spot-notice.sh"
TYPES = CLUSTER["available_node_types"]
#: What EC2's RunInstances takes of what we give it; Ray passes it on unseen.
NODE = {
    "BlockDeviceMappings",
    "IamInstanceProfile",
    "ImageId",
    "InstanceMarketOptions",
    "InstanceType",
    "MetadataOptions",
}


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


def refused(node: Document) -> str:
    """What EC2's RunInstances has against ``node``: Ray passes it on unseen."""
    wanted = boto3.session.Session().client("ec2", region_name="us-east-1").meta.service_model
    shape = wanted.operation_model("RunInstances").input_shape
    report: str = ParamValidator().validate({**node, "MinCount": 1, "MaxCount": 1}, shape).generate_report()
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
    starts = [command for command in commands if command.startswith("ray start")]
    assert len(starts) == 2
    for command in starts:
        assert set(re.findall(r"--[a-z-]+", command)) <= known
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


def test_a_spot_notice_drains_the_node(tmp_path: Path) -> None:
    told = tmp_path / "told"
    ray = tmp_path / "ray"
    ray.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\n')
    ray.chmod(0o755)
    with metadata() as url:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "METADATA": url, "PERIOD_S": "0.05"}
        subprocess.run([NOTICE], env=environment, check=True, timeout=60)
    assert Metadata.asked == Metadata.notice_at, "it asks again until there is a notice, and then no more"
    command, *words = told.read_text().splitlines()
    assert command == drain_node.name
    with drain_node.make_context("drain-node", words) as context:
        assert context.params["reason"] == "DRAIN_NODE_REASON_PREEMPTION"
        assert 0 < context.params["deadline_remaining_seconds"] < 120
