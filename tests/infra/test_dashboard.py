"""The dashboard: generated, about what we export, and well laid out. That its queries find data: tests/service."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import dashboard_picture
from jobs.dashboard import generated
from jobs.dashboard_panels import Panel
from jobs.dashboard_picture import substituted
from jobs.dashboard_rows import ROWS
from tests.infra.promql import OPTIONAL, ROOT, known, mistakes, selectors

VALIDATES = ("infra/grafana/*.json", "infra/grafana/*.yaml")

GRAFANA = ROOT / "infra" / "grafana"
RUNBOOKS = ROOT / "infra" / "runbooks"
PANELS = [panel for row in ROWS for panel in row.panels]
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "framelane.json").read_text())
BUILT = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_the_file_is_what_is_generated() -> None:
    written = (GRAFANA / "framelane.json").read_text()
    assert written == generated(), "python -m jobs.dashboard --update infra/grafana/framelane.json"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_queries_are_about_what_is_exported(panel: Panel) -> None:
    for query in panel.queries:
        expression = substituted(query.expression, "1m")
        assert "$" not in expression
        assert mistakes(expression) == []
        names = {name for name, _ in selectors(expression)}
        assert panel.optional == any(name.startswith(OPTIONAL) for name in names)
        assert panel.optional or query.expression.count("$instance") >= len(names - {"ALERTS"}), "every run is selected"
        read = set.union(set(), *(known().get(name, set()) for name in names))
        legend = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        assert panel.optional or legend <= read | {"run"}


def test_optional_panels_say_so() -> None:
    assert any(panel.optional for panel in PANELS)
    for panel in PANELS:
        assert ("(optional" in panel.title) == panel.optional


def test_every_runbook_is_linked_and_there() -> None:
    linked = {link["url"] for panel in BUILT for link in panel["links"]}
    assert linked == {f"${{runbooks}}/{path.name}" for path in RUNBOOKS.glob("*.md")}


def test_variables_choose_data_source_runs_and_processes() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "run", "instance", "runbooks"]
    for name in ("run", "instance"):
        assert variables[name]["allValue"] == ".*", "runs without the label are shown, too"
        for metric in re.findall(r"gamecraft_\w+", str(variables[name]["query"])):
            assert metric in known()
    for panel in BUILT:
        assert {each["datasource"]["uid"] for each in (panel, *panel["targets"])} == {"${datasource}"}


def test_panels_lie_beside_each_other() -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        taken.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
    assert max(taken.values()) == 1
    assert max(x for x, _ in taken) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_provisioning_names_a_prometheus_and_a_folder() -> None:
    (source,) = yaml.safe_load((GRAFANA / "datasource.yaml").read_text())["datasources"]
    assert (source["type"], source["access"]) == ("prometheus", "proxy")
    (provider,) = yaml.safe_load((GRAFANA / "dashboards.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")


def test_the_picture_shows_every_panel_that_has_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image, ImageChops

    asked = []

    def answer(prometheus: str, *, query: str, start: float, end: float, step: float) -> list[Mapping[str, Any]]:
        asked.append(query)
        points = [[start + step * n, "NaN" if n == 5 else str(0.1 * n)] for n in range(20)]
        return [{"metric": {"stage": stage}, "values": points} for stage in ("denoise", "decode")]

    monkeypatch.setattr(dashboard_picture, "_asked", answer)
    dashboard_picture.draw(str(tmp_path / "some.png"), "http://nowhere", 10.0)
    assert len(asked) == sum(len(panel.queries) for panel in PANELS if not panel.optional)
    monkeypatch.setattr(dashboard_picture, "_asked", lambda prometheus, **query: [])
    dashboard_picture.draw(str(tmp_path / "none.png"), "http://nowhere", 10.0)
    with Image.open(tmp_path / "some.png") as some, Image.open(tmp_path / "none.png") as none:
        other = ImageChops.difference(some.convert("L"), none.convert("L"))
    assert sum(other.histogram()[8:]) > 10_000, "lines and their names"


def test_the_picture_that_is_shown_is_small() -> None:
    assert (GRAFANA / "dashboard.png").stat().st_size < 250_000
