"""Scrape configurations, rules, alerts and runbooks: valid, about what we export, and each alert shown at work."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from jobs.config import resolve
from orchestrator.metrics import METRICS
from tests.infra.promql import ROOT, RULES, mistakes, rules

VALIDATES = ("infra/prometheus/**/*.yaml", "infra/runbooks/*.md")

PROMETHEUS = ROOT / "infra" / "prometheus"
RUNBOOKS = ROOT / "infra" / "runbooks"
CASES = sorted((PROMETHEUS / "tests").glob("*.yaml"))
NAMES = {spec.name for spec in METRICS}
ALERTS = {rule["alert"] for rule in rules() if "alert" in rule}

SECTIONS = ("**For users:**", "## First look", "## Causes, likeliest first", "## Silence", "**Escalate**")
#: What a runbook may tell people to run, beside our own entry points; words with an = set variables.
PROGRAMS = {"amtool", "curl", "df", "dmesg", "kubectl", "nvidia-smi", "ps", "py-spy", "ray"}
FIRST_WORDS = ("python -m ", *(f"{program} " for program in sorted(PROGRAMS)), "nvidia-smi")


def promtool(*arguments: str | Path) -> None:
    """Raise with what it says where it finds anything to object to."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (see tests/system_packages.sh)")
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "error" not in said.lower(), said


def test_rules_are_valid() -> None:
    promtool("check", "rules", *sorted(RULES.glob("*.yaml")))


def without_kubernetes(config: dict[str, Any], files: Path) -> dict[str, Any]:
    """``config`` with its targets from ``files``: Debian's Prometheus is built without Kubernetes' discovery."""
    for scrape in config["scrape_configs"]:
        if "kubernetes_sd_configs" in scrape:
            for found in scrape.pop("kubernetes_sd_configs"):
                assert found["role"] == "pod"
                assert set(found) <= {"role", "namespaces"}
            scrape["file_sd_configs"] = [{"files": [str(files)]}]
    config["rule_files"] = [str(PROMETHEUS / each) for each in config["rule_files"]]
    return config


@pytest.mark.parametrize("name", ["prometheus.local.yaml", "prometheus.kuberay.yaml"])
def test_scrape_configurations_are_valid(name: str, tmp_path: Path) -> None:
    config = without_kubernetes(yaml.safe_load((PROMETHEUS / name).read_text()), tmp_path / "*.json")
    (tmp_path / "targets.json").write_text("[]")
    token = tmp_path / "token"
    token.touch()
    for scrape in config["scrape_configs"]:
        if "authorization" in scrape:
            scrape["authorization"]["credentials_file"] = str(token)
    path = tmp_path / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    promtool("check", "config", path)
    jobs = {scrape["job_name"] for scrape in config["scrape_configs"]}
    assert {"framelane-job", "framelane-service"} <= jobs, "rules select by these names"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_are_about_what_is_exported(rule: dict[str, Any]) -> None:
    assert mistakes(rule["expr"]) == []


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("gamecraft_chunk_seconds", "no metric"),
        ('gamecraft_queue_depth{lane="a"}', "no label lane"),
        ("sum by (tenant) (gamecraft_queue_depth)", "the label tenant"),
        ("gamecraft_frames_total / on (stage) gamecraft_stalls_total", "the label stage"),
        ("framelane:job_eta_minutes", "no metric"),
    ],
)
def test_what_is_not_exported_is_found(expression: str, what: str) -> None:
    assert what in "; ".join(mistakes(expression))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_and_are_silent_as_shown(path: Path) -> None:
    promtool("test", "rules", path)


def test_every_alert_is_shown_firing_and_not() -> None:
    shown: dict[bool, set[str]] = defaultdict(set)
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for each in case["alert_rule_test"]:
                shown[bool(each["exp_alerts"])].add(each["alertname"])
    assert shown[True] == shown[False] == ALERTS


def test_every_severity_of_an_alert_is_shown() -> None:
    shown = {
        (
            each["alertname"],
            tuple(sorted(alert["exp_labels"].items() & {("severity", alert["exp_labels"]["severity"])})),
        )
        for path in CASES
        for case in yaml.safe_load(path.read_text())["tests"]
        for each in case["alert_rule_test"]
        for alert in each["exp_alerts"]
    }
    assert {
        (rule["alert"], (("severity", rule["labels"]["severity"]),)) for rule in rules() if "alert" in rule
    } == shown


@pytest.mark.parametrize("rule", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook"}
    assert "$labels.run" in told["description"]
    assert told["runbook"] == f"infra/runbooks/{rule['alert']}.md"


def test_one_page_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == ALERTS


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_a_page_has_every_part(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert 15 <= len(text.splitlines()) <= 35
    assert text.startswith(f"# {name}\n")
    places = [text.index(section) for section in SECTIONS]
    assert places == sorted(places)
    assert f"amtool silence add alertname={name} run=RUN" in text
    for link in re.findall(r"\]\((\S+?)\)", text):
        assert (RUNBOOKS / link).is_file(), link


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_what_a_page_tells_people_to_run_is_there(name: str) -> None:
    """Every command's program, and of our own each option and setting; every query's metrics and labels."""
    queries = 0
    for told in _told((RUNBOOKS / f"{name}.md").read_text()):
        if told.startswith("python -m "):
            _check_command(told)
        elif not told.startswith(FIRST_WORDS):
            assert told in NAMES or mistakes(told) == [], told
            queries += 1
    assert queries, "a page says what to look at"


def _told(text: str) -> Iterator[str]:
    """Indented lines, and words in backticks that are commands, queries or settings."""
    for line in text.splitlines():
        if line.startswith("    "):
            yield line.strip()
    for quoted in re.findall(r"`([^`]+)`", text):
        quoted = " ".join(quoted.split())
        if quoted.startswith("--set "):
            yield f"python -m jobs.serve {quoted}"
        elif quoted.startswith(FIRST_WORDS) or re.match(r"(gamecraft_|framelane:)[a-z]", quoted):
            yield quoted


def _check_command(told: str) -> None:
    words = shlex.split(told)[2:]
    options = importlib.import_module(words[0]).parser()._option_string_actions
    for word, value in pairwise([*words[1:], ""]):
        if word == "--set":
            resolve("gamecraft", sets=[value.replace("=N", "=7")])
        elif word.startswith("--"):
            assert word in options, told


def test_settings_that_pages_name_are_there() -> None:
    fields = set(re.findall(r"`((?:limits|service)\.[a-z_]+)`", "".join(p.read_text() for p in RUNBOOKS.glob("*.md"))))
    config = resolve("gamecraft").model_dump()
    assert fields
    for group, key in (each.split(".") for each in fields):
        assert key in config[group]


def test_expressions_are_written_as_promql_understands_them() -> None:
    """Guards the checks above: the parser finds every selector of an expression that Prometheus takes."""
    parsed = promql_parser.parse('a unless on (b) last_over_time(c{d="e"}[1h]) > 2')
    assert parsed is not None
    assert "no metric c" in mistakes("up unless on (job) last_over_time(c[1h]) > 2")
