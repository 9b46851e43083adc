"""What a PromQL expression reads: every metric, with the labels it selects and groups by, against what we export."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from orchestrator.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "infra" / "prometheus" / "rules"

#: Of every target (see the scrape configurations), and of what Prometheus itself adds.
TARGET = {"job", "run", "instance"}
#: Prometheus' own series.
OWN = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity"}}
#: Of exporters that may be there: no test here can see them.
OPTIONAL = ("DCGM_", "ray_")

#: Where an expression's node keeps others.
_PARTS = ("expr", "lhs", "rhs", "vector_selector", "args")


def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yaml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


@cache
def known() -> dict[str, set[str]]:
    """Labels of every series that our endpoint, our recording rules and Prometheus have, without the target's."""
    found = dict(OWN)
    for spec in METRICS:
        labels = set(spec.labels)
        if spec.kind == "histogram":
            found |= {f"{spec.name}_sum": labels, f"{spec.name}_count": labels, f"{spec.name}_bucket": labels | {"le"}}
        else:
            found[spec.name] = labels
    for rule in rules():
        if "record" in rule:
            read = {label for name, _ in selectors(rule["expr"]) for label in found.get(name, set())}
            found[rule["record"]] = read - {"le", "state", "reason"}
    return found


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Each metric that is read, with the labels that are matched."""
    return [
        (str(node.name), {matcher.name for matcher in node.matchers.matchers})
        for node in _nodes(promql_parser.parse(expression))
        if isinstance(node, promql_parser.VectorSelector)
    ]


def grouped(expression: str) -> set[str]:
    """Labels that results are grouped or joined by."""
    found: set[str] = set()
    for node in _nodes(promql_parser.parse(expression)):
        modifier = getattr(node, "modifier", None)
        if isinstance(node, promql_parser.AggregateExpr) and modifier is not None:
            found |= set(modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and modifier is not None and modifier.matching is not None:
            found |= set(modifier.matching.labels)
    return found


def mistakes(expression: str) -> list[str]:
    """Metrics that nobody exports, and labels that those which are read do not have."""
    read = selectors(expression)
    found = [f"no metric {name}" for name, _ in read if name not in known() and not name.startswith(OPTIONAL)]
    if found or any(name.startswith(OPTIONAL) for name, _ in read):
        return found
    for name, labels in read:
        found += [f"{name} has no label {label}" for label in labels - known()[name] - TARGET]
    everywhere = set.union(set(), *(known()[name] for name, _ in read))
    return [*found, *(f"nothing has the label {label}" for label in grouped(expression) - everywhere - TARGET)]


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for part in _PARTS:
        below = getattr(node, part, None)
        for each in below if isinstance(below, list) else [below]:
            if each is not None and not isinstance(each, str):
                yield from _nodes(each)
