"""Who reaches which port, who is scraped, what a node's drain may take: selectors must meet the pods they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gamecraft_core.base.errors import FramelaneError
from orchestrator.http.gate import digest, read_tokens
from tests.infra.documents import Document, Folder, found
from tests.infra.pods import Pods, groups

#: Ports of the pods by name: those that named callers reach from outside, and those that nobody does.
OPEN = {"dashboard": 8265, "metrics": 8080, "run": 9108, "serve": 8000}
CLOSED = {"gcs-server": 6379, "client": 10001}


def problems(folder: Folder) -> Iterator[str]:
    pods = list(groups(folder))
    yield from _ports(pods)
    for name, document in folder.items():
        spec = document.get("spec", {})
        match document["kind"]:
            case "NetworkPolicy":
                checks = [*_policy(spec), *_selected(spec["podSelector"], pods, found(spec["ingress"], "port"))]
            case "PodMonitor":
                checks = [*_selected(spec["selector"], pods, found(spec, "port"))]
            case "PodDisruptionBudget":
                checks = [*_budget(spec, pods)]
            case _:
                checks = []
        yield from (f"{name}: {check}" for check in checks)
    yield from _covered(folder, pods)
    yield from _token(folder)


def _ports(pods: list[Pods]) -> Iterator[str]:
    """Everywhere a port's name means the same number."""
    for each in pods:
        for name, number in each.ports.items():
            if {**OPEN, **CLOSED}.get(name) != number:
                yield f"{each.name}: port {name} is {number}"
        if each.role != "submitter" and "metrics" not in each.ports:
            yield f"{each.name}: Ray's metrics have no port"


def _policy(spec: Document) -> Iterator[str]:
    if spec["policyTypes"] != ["Ingress"]:
        yield "is about more than what comes in"
    for rule in spec["ingress"]:
        ports = {str(each["port"]) for each in rule.get("ports", ())}
        peers = rule.get("from", ())
        own = peers == [{"podSelector": spec["podSelector"]}]
        if not peers or (not all(peer.get("namespaceSelector", {}).get("matchLabels") for peer in peers) and not own):
            yield "lets anybody in"
        elif not own and (not ports or not ports <= OPEN.keys()):
            yield f"opens {', '.join(sorted(ports - OPEN.keys())) or 'every port'}"


def _selected(selector: Document, pods: list[Pods], ports: Iterator[str]) -> Iterator[str]:
    """The selector meets pods, and each named port is one of theirs."""
    met = [each for each in pods if _meets(selector, each.labels)]
    if not met:
        yield f"selects no pod: {selector}"
    served = [each.ports.keys() for each in met if each.role != "submitter"]
    for port in ports:
        if not any(port in names for names in served):
            yield f"no selected pod has port {port}"


def _meets(selector: Document, labels: Mapping[str, str]) -> bool:
    wanted: dict[str, str] = selector["matchLabels"]
    return wanted.items() <= labels.items()


def _budget(spec: Document, pods: list[Pods]) -> Iterator[str]:
    """Pods that no controller with a scale owns allow a whole ``minAvailable`` and nothing else."""
    if "maxUnavailable" in spec or not isinstance(spec.get("minAvailable"), int):
        yield "pods of custom resources allow a whole minAvailable only"
    met = [each for each in pods if _meets(spec["selector"], each.labels)]
    if [each.role for each in met] != ["head"]:
        yield f"is not about one head: {', '.join(each.name for each in met) or 'nothing'}"


def _covered(folder: Folder, pods: list[Pods]) -> Iterator[str]:
    """Every pod is behind a policy, every open port is opened, every head has a budget and every metric a monitor."""
    for each in pods:
        met = {
            kind: [doc["spec"] for name, doc in folder.items() if name.startswith(f"{kind}/") and _chosen(doc, each)]
            for kind in ("NetworkPolicy", "PodMonitor", "PodDisruptionBudget")
        }
        if not met["NetworkPolicy"]:
            yield f"{each.name}: no NetworkPolicy is about it"
        if each.role == "submitter":
            continue
        opened = {port for spec in met["NetworkPolicy"] for port in found(spec["ingress"], "port")}
        for port in OPEN.keys() & each.ports.keys() - opened:
            yield f"{each.name}: port {port} is open to nobody"
        scraped = {port for spec in met["PodMonitor"] for port in found(spec, "port")}
        for port in {"metrics", "run", "serve"} & each.ports.keys() - scraped:
            yield f"{each.name}: port {port} is scraped by nobody"
        if each.role == "head" and not met["PodDisruptionBudget"]:
            yield f"{each.name}: no PodDisruptionBudget keeps it"


def _chosen(document: Document, pods: Pods) -> bool:
    selector: Any = document["spec"].get("podSelector") or document["spec"].get("selector")
    return _meets(selector, pods.labels)


def _token(folder: Folder) -> Iterator[str]:
    """Prometheus' token is one that the service knows."""
    for name, document in folder.items():
        for credentials in found(document, "credentials"):
            secret = folder.get(f"Secret/{credentials['name']}", {}).get("stringData", {})
            try:
                known = read_tokens(secret.get("tokens", "").splitlines())
            except (ValueError, FramelaneError) as error:
                yield f"Secret/{credentials['name']}: {error}"
                continue
            if digest(secret.get(credentials["key"], "")) not in known:
                yield f"{name}: the service does not know the token {credentials['key']}"
