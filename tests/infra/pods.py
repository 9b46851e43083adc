"""Pods as the manifests describe them, and what must hold for every one: identity, security, volumes, references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from gamecraft_core.base.version import VERSION
from tests.infra.documents import Document, Folder, found

NODE_TYPE = "ray.io/node-type"

#: Where Ray, Python's libraries and our caches write; the root of the file system is read-only.
_WRITTEN = {"/tmp", "/home/framelane"}
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Pods:
    """One group of equal pods: a head, the workers of a group, or a job's submitter."""

    name: str
    role: str
    template: Document
    params: Mapping[str, str]

    @cached_property
    def spec(self) -> Document:
        return dict(self.template["spec"])

    @cached_property
    def container(self) -> Document:
        return dict(self.spec["containers"][0])

    @cached_property
    def labels(self) -> dict[str, str]:
        """The template's, and what KubeRay adds."""
        added = {} if self.role == "submitter" else {NODE_TYPE: self.role}
        return {**self.template.get("metadata", {}).get("labels", {}), **added}

    @cached_property
    def ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.container.get("ports", ())}

    @cached_property
    def volumes(self) -> dict[str, Document]:
        return {each["name"]: each for each in self.spec.get("volumes", ())}

    def limit(self, what: str) -> Decimal:
        return quantity(self.container["resources"]["limits"].get(what, "0"))

    def environment(self) -> dict[str, str]:
        return {each["name"]: each.get("value", "") for each in self.container.get("env", ())}


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity as a number."""
    if text.endswith("m"):
        return Decimal(text.removesuffix("m")) / 1000
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return Decimal(text.removesuffix(unit)) * factor
    return Decimal(text)


def cluster_spec(document: Document) -> Document | None:
    """The RayCluster's spec in any of KubeRay's kinds."""
    spec = document["spec"] if document["apiVersion"] == "ray.io/v1" else {}
    field = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}.get(document["kind"])
    made: Document | None = spec.get(field) if field else spec or None
    return made


def groups(folder: Folder) -> Iterator[Pods]:
    """Every group of pods that the folder's documents lead to."""
    for name, document in folder.items():
        spec = cluster_spec(document)
        if spec is None:
            continue
        head = spec["headGroupSpec"]
        yield Pods(f"{name} head", "head", head["template"], head.get("rayStartParams", {}))
        for group in spec["workerGroupSpecs"]:
            title = f"{name} {group['groupName']}"
            yield Pods(title, "worker", group["template"], group.get("rayStartParams", {}))
        if submitter := document["spec"].get("submitterPodTemplate"):
            yield Pods(f"{name} submitter", "submitter", submitter, {})


def problems(folder: Folder) -> Iterator[str]:
    """What is wrong with the folder's pods."""
    for pods in groups(folder):
        for problem in (*_security(pods), *_volumes(pods), *_resources(pods)):
            yield f"{pods.name}: {problem}"
    yield from _autoscaler(folder)
    yield from _references(folder)
    yield from _images(folder)


def _security(pods: Pods) -> Iterator[str]:
    """Kubernetes' profile *restricted*, and a root that cannot be written."""
    pod = pods.spec.get("securityContext", {})
    if not (pod.get("runAsNonRoot") and pod.get("runAsUser")):
        yield "may run as root"
    if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"
    yield from _confined(pods.container)
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pods.spec.get(key):
            yield f"shares the node's {key}"
    if "hostPath" in {kind for volume in pods.volumes.values() for kind in volume}:
        yield "mounts a folder of the node"


def _confined(container: Document) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "may gain privileges"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if not context.get("readOnlyRootFilesystem"):
        yield "may write its root"


def _autoscaler(folder: Folder) -> Iterator[str]:
    """The container that KubeRay puts beside a head's own."""
    for name, document in folder.items():
        if (spec := cluster_spec(document)) is None:
            continue
        options = spec["autoscalerOptions"]
        volumes = {each["name"] for each in spec["headGroupSpec"]["template"]["spec"]["volumes"]}
        strange = {each["name"] for each in options.get("volumeMounts", ())} - volumes
        problems = [*_confined(options), *(f"mounts {each}, which is no volume" for each in strange)]
        yield from (f"{name} autoscaler: {problem}" for problem in problems)


def _volumes(pods: Pods) -> Iterator[str]:
    mounts = {each["mountPath"]: each["name"] for each in pods.container["volumeMounts"]}
    for name in mounts.values():
        if name not in pods.volumes:
            yield f"mounts {name}, which is no volume"
    for name in pods.volumes.keys() - mounts.values():
        yield f"volume {name} is mounted nowhere"
    for path in _WRITTEN - mounts.keys():
        yield f"nothing to write to is mounted at {path}"
    empty = {name: each["emptyDir"] for name, each in pods.volumes.items() if "emptyDir" in each}
    sizes = {name: quantity(each.get("sizeLimit", "0")) for name, each in empty.items()}
    for name, size in sizes.items():
        if not size:
            yield f"volume {name} has no sizeLimit"
    memory = {name for name, each in empty.items() if each.get("medium") == "Memory"}
    disk = sum(size for name, size in sizes.items() if name not in memory)
    if pods.role != "submitter":
        if disk > pods.limit("ephemeral-storage"):
            yield f"its volumes hold {disk} bytes, its ephemeral-storage is {pods.limit('ephemeral-storage')}"
        shared = mounts.get("/dev/shm", "")
        if shared not in memory or sizes[shared] > pods.limit("memory") / 2:
            yield "/dev/shm is no memory, or most of the pod's"
        elif sizes[shared] < Decimal(pods.params.get("object-store-memory", "0")):
            yield "the object store is larger than /dev/shm"


def _resources(pods: Pods) -> Iterator[str]:
    """Guaranteed ones: what is limited is requested, so that no neighbour's need takes it."""
    resources = pods.container["resources"]
    if resources.get("requests") != resources["limits"]:
        yield "requests other resources than its limits"


def _references(folder: Folder) -> Iterator[str]:
    """Whatever is named is there, with the key that is named."""
    for name, document in folder.items():
        for account in found(document, "serviceAccountName"):
            if f"ServiceAccount/{account}" not in folder:
                yield f"{name}: there is no ServiceAccount {account}"
        for kind, key, field in _REFERENCES:
            for reference in found(document, field):
                target = folder.get(f"{kind}/{reference if isinstance(reference, str) else reference.get(key)}")
                if target is None:
                    yield f"{name}: {field} names no {kind} of the folder: {reference}"
                elif not _keys(reference) <= {*target.get("stringData", {}), *target.get("data", {})}:
                    yield f"{name}: {field} names a key that its {kind} lacks: {reference}"
        for volume in found(document, "persistentVolumeClaim"):
            if f"PersistentVolumeClaim/{volume['claimName']}" not in folder:
                yield f"{name}: there is no PersistentVolumeClaim {volume['claimName']}"


_REFERENCES = (
    ("Secret", "name", "secretRef"),
    ("Secret", "name", "secretKeyRef"),
    ("Secret", "secretName", "secret"),
    ("Secret", "secretName", "authOptions"),
    ("Secret", "name", "credentials"),
    ("ConfigMap", "name", "configMapRef"),
    ("ConfigMap", "name", "configMapKeyRef"),
    ("ConfigMap", "name", "configMap"),
)


def _keys(reference: Any) -> set[str]:
    if isinstance(reference, str):
        return set()
    named = {reference["key"]} if "key" in reference else set()
    return named | {item["key"] for item in reference.get("items", ())}


def _images(folder: Folder) -> Iterator[str]:
    """One image for everything without GPUs and one for GPU pods, both of this version."""
    used: dict[str, set[str]] = {"cpu": set(), "cuda": set()}
    for pods in groups(folder):
        used["cuda" if pods.limit("nvidia.com/gpu") else "cpu"].add(pods.container["image"])
    for kind, images in used.items():
        if len(images) != 1 or not all(image.endswith(f"/framelane:{VERSION}-{kind}") for image in images):
            yield f"images with {kind} are not one of version {VERSION}: {', '.join(sorted(images))}"
    if len({image.rpartition(":")[0] for images in used.values() for image in images}) > 1:
        yield "images come from several places"
