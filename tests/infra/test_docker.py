"""The images' recipes: linted, pinned, of what the package needs, for a user who is not root."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.infra import documents
from tests.infra.documents import INFRA, ROOT, read
from tests.infra.pods import groups

VALIDATES = ("infra/docker/Dockerfile", "infra/docker/Dockerfile.cpu", "infra/docker/.hadolint.yaml")

DOCKER = INFRA / "docker"
RECIPES = [DOCKER / "Dockerfile", DOCKER / "Dockerfile.cpu"]
HADOLINT = Path(sys.executable).with_name("hadolint")

every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)


def lint(path: Path) -> str:
    command = [str(HADOLINT), "--no-color", "--config", str(DOCKER / ".hadolint.yaml"), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def pins(name: str) -> dict[str, str]:
    lines = (line for line in (ROOT / name).read_text("utf-8").splitlines() if not line.startswith("#"))
    return {key.lower().replace("_", "-"): version for key, version in (line.split("==") for line in lines)}


def extra(name: str) -> list[Requirement]:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(rf"^{name} = \[(.*)\]$", text, re.MULTILINE)
    assert found
    return [Requirement(each.strip(' "')) for each in found[1].split(",") if each.strip().startswith('"')]


@every_recipe
def test_the_linter_has_nothing_to_object_to(recipe: Path) -> None:
    assert lint(recipe) == ""


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("USER 1000:1000", "USER root", "DL3002"),
        ("WORKDIR /src", "WORKDIR src", "DL3000"),
        ("ARG BASE=ubuntu:24.04", "ARG BASE=ubuntu:24.04\nFROM ubuntu AS tagless", "DL3006"),
        ("--no-install-recommends ", "", "DL3015"),
        ("pip install -c constraints.txt torch", "pip install torch", "DL3013"),
        ("    && rm -rf /var/lib/apt/lists/* \\\n", "", "DL3009"),
        ("FROM ${BASE} AS builder", "FORM ${BASE} AS builder", "unexpected"),
    ],
)
def test_the_linter_objects(tmp_path: Path, old: str, new: str, rule: str) -> None:
    text = RECIPES[1].read_text("utf-8")
    assert old in text
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(text.replace(old, new))
    assert rule in lint(wrong)


def test_each_ignored_rule_has_a_reason() -> None:
    text = (DOCKER / ".hadolint.yaml").read_text("utf-8")
    (config,) = read(text)
    for rule in config["ignored"]:
        assert re.search(rf"^  # .*\n(?:  # .*\n)*  - {rule}$", text, re.MULTILINE)


@every_recipe
def test_bases_are_arguments_with_a_version(recipe: Path) -> None:
    text = recipe.read_text("utf-8")
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    stages = re.findall(r"^FROM \$\{(\w+)\}", text, re.MULTILINE)
    assert len(stages) == len(re.findall(r"^FROM ", text, re.MULTILINE)) == 2
    for stage in stages:
        assert re.search(r":(\$\{CUDA\}|\d+\.)", defaults[stage]), f"{stage} may be anything"
    assert "://" not in text, "no host is anybody's but the builder's"


@every_recipe
def test_whatever_pip_installs_is_pinned(recipe: Path) -> None:
    text = re.sub(r"\\\n\s*(#.*\n\s*)*", " ", recipe.read_text("utf-8"))
    commands = re.findall(r"pip (?:install|wheel) [^&\n]*", text)
    assert len(commands) >= 3
    for command in commands:
        assert re.search(r"-c constraints[a-z-]*\.txt|/wheels/\*\.whl", command), command
    copied = set(re.findall(r"constraints[a-z-]*\.txt", " ".join(re.findall(r"^COPY .*$", text, re.MULTILINE))))
    assert copied == set(re.findall(r"-c (constraints[a-z-]*\.txt)", text))


def test_pins_for_gpus_are_the_extra_and_no_other_version_of_anything() -> None:
    ours, theirs = pins("infra/docker/constraints-gpu.txt"), pins("constraints.txt")
    for requirement in extra("gpu"):
        assert requirement.specifier.contains(ours[requirement.name], prereleases=True)
    assert not ours.keys() & theirs.keys(), "two files pin it"
    assert pins("infra/docker/constraints-build.txt").keys() >= {"pip", "setuptools"}


@every_recipe
def test_the_image_has_what_a_cluster_expects(recipe: Path) -> None:
    """KubeRay starts Ray with bash and probes it with wget and grep; Ray's launcher copies with rsync."""
    final = recipe.read_text("utf-8").rpartition("FROM ${BASE}")[2]
    installed = re.search(r"--no-install-recommends (.*)", final)
    assert installed
    assert {"bash", "ca-certificates", "grep", "rsync", "wget"} <= set(installed[1].split())
    assert "python3" in installed[1]
    assert re.search(r"^ENV PATH=/opt/framelane/bin:", final, re.MULTILINE)
    assert "COPY infra/docker/profile.sh /etc/profile.d/" in final
    assert "openssh-client" in installed[1] or recipe.name == "Dockerfile", "a launcher's head reaches nodes by SSH"


@every_recipe
def test_the_user_is_the_one_that_pods_run_as(recipe: Path) -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", recipe.read_text("utf-8"), re.MULTILINE)
    contexts = [each.spec["securityContext"] for each in groups(documents.kuberay())]
    assert {(str(each["runAsUser"]), str(each["runAsGroup"])) for each in contexts} == {user}


def test_a_login_shell_finds_ray() -> None:
    command = ["bash", "-c", f"PATH=/usr/bin:/bin; . {DOCKER / 'profile.sh'}; echo $PATH"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert shown == "/opt/framelane/bin:/usr/bin:/bin\n"


def test_nothing_but_the_package_goes_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sent = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    tree = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    top = {path.partition("/")[0] for path in tree.splitlines()}
    assert {name.partition("/")[0] for name in sent} <= top
    assert not sent & {".git", "tests", ".venv"}
    packages = re.search(r"^include = \[(.*)\]$", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert packages
    wanted = {name.strip(' "').removesuffix("*") for name in packages[1].split(",")} | {"README.md", "LICENSE"}
    assert wanted <= sent
    for recipe in RECIPES:
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", recipe.read_text("utf-8"), re.MULTILINE):
            for source in line.split():
                assert source == "." or any(fnmatchcase(source, f"{name}*") for name in sent), source
