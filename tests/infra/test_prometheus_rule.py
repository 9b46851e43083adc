"""The PrometheusRule is the rules of infra/prometheus and nothing else, and PodMonitors give what they are about."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.infra import documents, prometheus_rule, schemas
from tests.infra.documents import INFRA, changed, found, read

VALIDATES = ("infra/kuberay/prometheus-rule.yaml",)

GOOD = documents.kuberay()
RULE = "PrometheusRule/framelane"


def test_it_is_the_rules() -> None:
    remedy = "run python -m tests.infra.prometheus_rule"
    assert read(prometheus_rule.TARGET.read_text("utf-8")) == [prometheus_rule.made()], remedy


@pytest.mark.parametrize(
    ("pointer", "value", "problem"),
    [
        ("/spec/group", [], "'group' was unexpected"),
        ("/spec/groups/0/rules/0/exprs", "1", "'exprs' was unexpected"),
        ("/spec/groups/0/rules/0/for", "5", "does not match"),
        ("/spec/groups/0/rules/0", {"expr": "1"}, "is a required property"),
        ("/spec/groups/0/rules/0/labels", {"severity": 1}, "1 is not of type 'string'"),
    ],
)
def test_the_schema_catches(pointer: str, value: object, problem: str) -> None:
    assert list(schemas.of(GOOD[RULE])) == []
    wrong = list(schemas.of(changed(GOOD, RULE, pointer, value)[RULE]))
    assert any(problem in each for each in wrong), wrong


def checked(groups: object, folder: Path) -> int:
    """promtool's verdict on ``groups``."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (see tests/system_packages.sh)")
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups}))
    command = [promtool, "check", "rules", "--lint-fatal", str(path)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


@pytest.mark.service
def test_promtool_takes_them(tmp_path: Path) -> None:
    assert checked(GOOD[RULE]["spec"]["groups"], tmp_path) == 0
    wrong = changed(GOOD, RULE, "/spec/groups/0/rules/0/expr", "rate(gamecraft_frames_total[5m]")
    assert checked(wrong[RULE]["spec"]["groups"], tmp_path) != 0


def test_monitors_give_the_labels_that_the_rules_are_about() -> None:
    """The same as the configuration of a Prometheus without the operator."""
    (config,) = read((INFRA / "prometheus" / "prometheus.kuberay.yaml").read_text("utf-8"))
    jobs = {each["job_name"] for each in config["scrape_configs"]} - {"dcgm"}
    monitors = [each["spec"] for name, each in GOOD.items() if name.startswith("PodMonitor/")]
    labels = [{rule["targetLabel"]: rule for rule in found_rules} for found_rules in found(monitors, "relabelings")]
    assert {each["job"]["replacement"] for each in labels} == jobs
    assert all(each.keys() == {"job", "run", "instance"} for each in labels)
