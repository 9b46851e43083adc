"""What surrounds Ray's clusters: accounts, secrets, who reaches which port, what is scraped, what a drain may take."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra import documents, net_rules, schemas
from tests.infra.documents import GONE, changed

VALIDATES = (
    "infra/kuberay/disruption.yaml",
    "infra/kuberay/monitoring.yaml",
    "infra/kuberay/namespace.yaml",
    "infra/kuberay/network-policy.yaml",
    "infra/kuberay/secret*.yaml",
)

GOOD = documents.kuberay()
OURS, HEADS, METRICS = (f"NetworkPolicy/framelane{name}" for name in ("", "-heads", "-metrics"))
BUDGET, SECRET = "PodDisruptionBudget/framelane-head", "Secret/framelane-tokens"
RUNS, WATCHED = "PodMonitor/framelane-runs", "PodMonitor/framelane-service"
HEAD = "/spec/headGroupSpec/template"


def test_there_is_nothing_to_object_to() -> None:
    assert [*schemas.problems(GOOD), *net_rules.problems(GOOD)] == []


def test_everything_is_in_the_namespace() -> None:
    spaces = {name: each["metadata"].get("namespace") for name, each in GOOD.items()}
    assert spaces.pop("Namespace/framelane") is None
    assert set(spaces.values()) == {"framelane"}


def test_secrets_hold_placeholders_and_say_so() -> None:
    values = [
        value for name, each in GOOD.items() if name.startswith("Secret/") for value in each["stringData"].values()
    ]
    assert len(values) == 5
    assert all("CHANGE-ME" in value for value in values)
    for path in documents.INFRA.glob("kuberay/secret*.yaml"):
        assert path.read_text("utf-8").startswith("# PLACEHOLDERS")


@pytest.mark.parametrize(
    ("name", "pointer", "value", "problem"),
    [
        ("ServiceAccount/framelane-head", "/automountToken", True, "'automountToken' was unexpected"),
        ("ConfigMap/framelane-environment", "/data/AWS_REGION", 1, "1 is not of type 'string'"),
        (SECRET, "/stringdata", {}, "'stringdata' was unexpected"),
        (OURS, "/spec/policyTypes", "Ingress", "'Ingress' is not of type 'array'"),
        (HEADS, "/spec/ingress/0/port", [], "'port' was unexpected"),
        (BUDGET, "/spec/minAvailabel", 1, "'minAvailabel' was unexpected"),
        (RUNS, "/spec/podMetricsEndpoint", [], "'podMetricsEndpoint' was unexpected"),
        (RUNS, "/spec/podMetricsEndpoints", [], "non-empty"),
        (RUNS, "/spec/podMetricsEndpoints/0/prot", "run", "'prot' was unexpected"),
        (RUNS, "/spec/podMetricsEndpoints/0/interval", "15", "does not match"),
        (RUNS, "/spec/podMetricsEndpoints/0/relabelings/0/sourceLabels/0", "ray.io/cluster", "does not match"),
        (WATCHED, "/metadata/namespace", GONE, "'namespace' is a required property"),
    ],
)
def test_the_schemas_catch(name: str, pointer: str, value: Any, problem: str) -> None:
    (found,) = schemas.of(changed(GOOD, name, pointer, value)[name])
    assert problem in found


@pytest.mark.parametrize(
    ("name", "pointer", "value", "problem"),
    [
        ("RayCluster/framelane", f"{HEAD}/spec/containers/0/ports/1/containerPort", 8266, "port dashboard is 8266"),
        ("RayCluster/framelane", f"{HEAD}/spec/containers/0/ports/1/name", "ui", "port ui is 8265"),
        ("RayCluster/framelane", f"{HEAD}/spec/containers/0/ports", [], "Ray's metrics have no port"),
        (
            "RayCluster/framelane",
            f"{HEAD}/metadata/labels/app.kubernetes.io~1name",
            "x",
            "no NetworkPolicy is about it",
        ),
        (OURS, "/spec/ingress/0", {}, "lets anybody in"),
        (OURS, "/spec/policyTypes", ["Ingress", "Egress"], "more than what comes in"),
        (HEADS, "/spec/ingress/1/from", GONE, "lets anybody in"),
        (HEADS, "/spec/ingress/1/from/0/namespaceSelector", {}, "lets anybody in"),
        (HEADS, "/spec/ingress/1/ports", GONE, "opens every port"),
        (HEADS, "/spec/ingress/1/ports/0/port", "client", "opens client"),
        (HEADS, "/spec/ingress/1/ports/0/port", 6379, "opens 6379"),
        (HEADS, "/spec/podSelector/matchLabels/ray.io~1node-type", "Head", "selects no pod"),
        (METRICS, "/spec/ingress/0/ports/1", {"port": "metrics"}, "port run is open to nobody"),
        (BUDGET, "/spec/maxUnavailable", 1, "a whole minAvailable only"),
        (BUDGET, "/spec/minAvailable", "50%", "a whole minAvailable only"),
        (BUDGET, "/spec/selector/matchLabels", {"ray.io/node-type": "head"}, "is not about one head"),
        (BUDGET, "/spec/selector/matchLabels/ray.io~1node-type", "worker", "no PodDisruptionBudget keeps it"),
        (RUNS, "/spec/podMetricsEndpoints/0/port", "runs", "no selected pod has port runs"),
        (RUNS, "/spec/selector/matchLabels/ray.io~1node-type", "worker", "port run is scraped by nobody"),
        (WATCHED, "/spec/podMetricsEndpoints/0/authorization/credentials/key", "tokens", "does not know the token"),
        (SECRET, "/stringData/tokens", "monitoring two words\n", "a line is not TENANT TOKEN"),
        (SECRET, "/stringData/monitoring", "another", "does not know the token"),
    ],
)
def test_our_rules_catch(name: str, pointer: str, value: Any, problem: str) -> None:
    found = list(net_rules.problems(changed(GOOD, name, pointer, value)))
    assert any(problem in each for each in found), found
