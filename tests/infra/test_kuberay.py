"""RayCluster, RayJob and RayService: against KubeRay's own schemas, and against what the program expects of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.infra import documents, pods, ray_rules, schemas, strip_crds
from tests.infra.documents import GONE, changed

VALIDATES = ("infra/kuberay/raycluster.yaml", "infra/kuberay/rayjob.yaml", "infra/kuberay/rayservice.yaml")

GOOD = documents.kuberay()
CLUSTER, JOB, SERVICE = "RayCluster/framelane", "RayJob/framelane-synthesis", "RayService/framelane-service"
HEAD = "/spec/headGroupSpec/template/spec"
GPU = "/spec/workerGroupSpecs/0"
BOX = f"{GPU}/template/spec/containers/0"
ENTRYPOINT, SERVE = GOOD[JOB]["spec"]["entrypoint"], GOOD[SERVICE]["spec"]["serveConfigV2"]


def test_schemas_have_nothing_to_object_to() -> None:
    assert list(schemas.problems(GOOD)) == []


def test_neither_have_our_own_rules() -> None:
    assert [*ray_rules.problems(GOOD), *pods.problems(GOOD)] == []


@pytest.mark.parametrize(
    ("name", "pointer", "value", "problem"),
    [
        (CLUSTER, "/spec/enableInTreeAutoScaling", True, "'enableInTreeAutoScaling' was unexpected"),
        (CLUSTER, f"{GPU}/maxReplicass", 8, "'maxReplicass' was unexpected"),
        (CLUSTER, f"{GPU}/minReplicas", "1", "minReplicas: '1' is not of type 'integer'"),
        (CLUSTER, f"{GPU}/groupName", GONE, "'groupName' is a required property"),
        (CLUSTER, f"{GPU}/rayStartParams/num-cpus", 8, "8 is not of type 'string'"),
        (CLUSTER, f"{BOX}/imagePullpolicy", "Always", "'imagePullpolicy' was unexpected"),
        (CLUSTER, f"{BOX}/resources/limits/memory", "960 Gi", "'960 Gi' does not match"),
        (CLUSTER, f"{BOX}/ports/0/containerPort", GONE, "'containerPort' is a required property"),
        (CLUSTER, f"{HEAD}/securityContext/runAsNonRoot", "yes", "'yes' is not of type 'boolean'"),
        (CLUSTER, f"{HEAD}/volumes/0/emptyDir/sizelimit", "1Gi", "'sizelimit' was unexpected"),
        (CLUSTER, "/spec/autoscalerOptions/version", "v3", "'v3' is not one of"),
        (CLUSTER, "/spec/authOptions/mode", "tokens", "'tokens' is not one of"),
        (CLUSTER, "/metadata/label", {}, "metadata has label"),
        (JOB, "/spec/entryPoint", "python", "'entryPoint' was unexpected"),
        (JOB, "/spec/rayClusterSpec/headGroupSpec", GONE, "'headGroupSpec' is a required property"),
        (JOB, "/spec/submitterPodTemplate/spec/container", [], "'container' was unexpected"),
        (SERVICE, "/spec/serveConfig", "", "'serveConfig' was unexpected"),
        (SERVICE, "/spec/upgradeStrategy/kind", "None", "'kind' was unexpected"),
    ],
)
def test_the_schemas_catch(name: str, pointer: str, value: Any, problem: str) -> None:
    (found,) = schemas.of(changed(GOOD, name, pointer, value)[name])
    assert problem in found


@pytest.mark.parametrize(
    ("name", "pointer", "value", "problem"),
    [
        (CLUSTER, f"{GPU}/minReplicas", 9, "minReplicas <= replicas <= maxReplicas"),
        (CLUSTER, "/spec/rayVersion", "2.59.0", "is not the pinned"),
        (CLUSTER, "/spec/authOptions/mode", "disabled", "asks nobody for a token"),
        (CLUSTER, "/spec/enableInTreeAutoscaling", False, "autoscaler v2"),
        (CLUSTER, "/spec/autoscalerOptions/idleTimeoutSeconds", 60, "sooner than an elastic fleet"),
        (CLUSTER, f"{HEAD}/restartPolicy", "Always", "restartPolicy Always"),
        (CLUSTER, "/spec/headGroupSpec/rayStartParams/num_cpus", "0", "no option of ray start"),
        (CLUSTER, "/spec/headGroupSpec/rayStartParams/num-cpus", "4", "lanes may come to the head"),
        (CLUSTER, "/spec/headGroupSpec/rayStartParams/resources", '\'{"gateway": "1"}\'', "not counts"),
        (CLUSTER, f"{GPU}/template/spec/terminationGracePeriodSeconds", 60, "worker: killed before its drain"),
        (CLUSTER, f"{HEAD}/containers/0/env/0/value", "170", "head: killed before its drain"),
        (CLUSTER, f"{BOX}/resources/limits/nvidia.com~1gpu", "7", "reserves 8 GPU"),
        (CLUSTER, f"{BOX}/resources/limits/cpu", "27", "reserves 28 CPU"),
        (JOB, "/spec/rayClusterSpec/workerGroupSpecs/0/maxReplicas", 7, "fleet 8xa100-elastic reserves 64 GPU"),
        (JOB, "/spec/entrypoint", "python -m jobs.generate", "entrypoint runs"),
        (JOB, "/spec/entrypoint", f"{ENTRYPOINT} --mainfest x", "entrypoint: 2"),
        (JOB, "/spec/entrypoint", ENTRYPOINT.replace("8xa100-elastic", "8xa100"), "unknown fleet"),
        (JOB, "/spec/entrypoint", ENTRYPOINT.replace("gamecraft-distill --", "gamecraft-distil --"), "unknown preset"),
        (JOB, "/spec/entrypoint", f"{ENTRYPOINT} --set limits.grace=1", "limits.grace"),
        (JOB, "/spec/entrypoint", f"{ENTRYPOINT} --set limits.grace_seconds=110", "take 125"),
        (JOB, "/spec/entrypoint", ENTRYPOINT.replace("9108", "9109"), "is not the head's port `run`"),
        (JOB, "/spec/runtimeEnvYAML", "env_vars: {}", "RAY_JOB_STOP_WAIT_TIME_S is 3"),
        (JOB, "/spec/runtimeEnvYAML", 'env_vars: {RAY_JOB_STOP_WAIT_TIME_S: "141"}', "head goes before"),
        (SERVICE, "/spec/upgradeStrategy/type", "NewCluster", "on two clusters at once"),
        (SERVICE, "/spec/rayClusterConfig/workerGroupSpecs/0/template/spec/nodeSelector", {}, "is not like"),
    ],
)
def test_our_rules_catch(name: str, pointer: str, value: Any, problem: str) -> None:
    found = list(ray_rules.problems(changed(GOOD, name, pointer, value)))
    assert any(problem in each for each in found), found


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("jobs.gateway:build", "jobs.gateway:make", "is not the gateway's"),
        ("name: framelane", "name: default", "another name or prefix"),
        ("route_prefix: /", "route_prefix: /serve", "another name or prefix"),
        ("route_prefix", "route_perfix", "an application has no route_perfix"),
        ("ray_actor_options", "actor_options", "a deployment has no actor_options"),
        ("http_options", "http_option", "there is no http_option"),
        ("port: 8000", "port: eight", "serveConfigV2: "),
        ("name: gateway", "name: gate", "no deployment gate"),
        ("{gateway: 0.1}", "{gateway: 1}", "no room for two replicas"),
        ("{gateway: 0.1}", "{head: 0.1}", "no room for two replicas"),
        (", resources: {gateway: 0.1}", "", "no room for two replicas"),
        ("tokens: ", "token: ", "token"),
        ("/etc/framelane/", "/etc/", "nothing is mounted where"),
        ("fleet.detached", "fleet.deatched", "fleet.deatched"),
        ("gamecraft-distill\n", "gamecraft-distil\n", "unknown preset"),
        ("port: 8000", "port: 8001", "another port"),
        ("grace_seconds=90", "grace_seconds=130", "take 145"),
    ],
)
def test_our_rules_catch_in_serves_configuration(old: str, new: str, problem: str) -> None:
    assert old in SERVE
    (found, *_) = ray_rules.problems(changed(GOOD, SERVICE, "/spec/serveConfigV2", SERVE.replace(old, new)))
    assert problem in found


@pytest.mark.parametrize(
    ("pointer", "value", "problem"),
    [
        (f"{HEAD}/securityContext/runAsUser", 0, "may run as root"),
        (f"{HEAD}/securityContext/seccompProfile", GONE, "no seccomp profile"),
        (f"{BOX}/securityContext/allowPrivilegeEscalation", GONE, "may gain privileges"),
        (f"{BOX}/securityContext/privileged", True, "may gain privileges"),
        (f"{BOX}/securityContext/capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "keeps capabilities"),
        (f"{BOX}/securityContext/readOnlyRootFilesystem", False, "may write its root"),
        (f"{GPU}/template/spec/hostNetwork", True, "the node's hostNetwork"),
        (f"{GPU}/template/spec/volumes/2", {"name": "model-cache", "hostPath": {"path": "/"}}, "a folder of the node"),
        (f"{BOX}/volumeMounts/0/name", "scratsch", "mounts scratsch, which is no volume"),
        (f"{BOX}/volumeMounts/0/mountPath", "/scratch", "nothing to write to is mounted at /tmp"),
        (f"{GPU}/template/spec/volumes/2/emptyDir/sizeLimit", GONE, "volume model-cache has no sizeLimit"),
        (f"{GPU}/template/spec/volumes/0/emptyDir/sizeLimit", "1Ti", "its ephemeral-storage is"),
        (f"{GPU}/template/spec/volumes/3/emptyDir/medium", GONE, "/dev/shm is no memory"),
        (f"{GPU}/template/spec/volumes/3/emptyDir/sizeLimit", "16Gi", "larger than /dev/shm"),
        (f"{BOX}/resources/requests/memory", "100Gi", "requests other resources"),
        ("/spec/autoscalerOptions/securityContext/readOnlyRootFilesystem", GONE, "may write its root"),
        ("/spec/autoscalerOptions/securityContext", {}, "may gain privileges"),
        ("/spec/autoscalerOptions/volumeMounts/0/name", "tmp", "mounts tmp, which is no volume"),
        (f"{HEAD}/serviceAccountName", "framelane", "no ServiceAccount framelane"),
        (f"{HEAD}/containers/0/envFrom/0/configMapRef/name", "environment", "no ConfigMap of the folder"),
        (f"{HEAD}/containers/0/envFrom/1/secretRef/name", "s3", "no Secret of the folder"),
        ("/spec/authOptions/secretName", "ray-token", "authOptions names no Secret"),
        (f"{BOX}/image", "registry.example.com/framelane:latest", "are not one of version"),
        (f"{BOX}/image", "elsewhere.example.com/framelane:0.1.0-cuda", "are not one of version"),
    ],
)
def test_rules_for_pods_catch(pointer: str, value: Any, problem: str) -> None:
    found = list(pods.problems(changed(GOOD, CLUSTER, pointer, value)))
    assert any(problem in each for each in found), found


def test_a_key_of_a_secret_must_be_there() -> None:
    volume = "/spec/rayClusterConfig/headGroupSpec/template/spec/volumes/4/secret/items/0/key"
    (found,) = pods.problems(changed(GOOD, SERVICE, volume, "token"))
    assert "a key that its Secret lacks" in found


def test_a_claim_must_be_there() -> None:
    volume = {"name": "model-cache", "persistentVolumeClaim": {"claimName": "weights"}}
    found = list(pods.problems(changed(GOOD, CLUSTER, f"{HEAD}/volumes/2", volume)))
    assert f"{CLUSTER}: there is no PersistentVolumeClaim weights" in found


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(Exception, match="key 'a' stands twice"):
        documents.read("a: 1\nb: {c: 1, d: 2}\na: 2\n")


def test_what_is_stripped_is_strict() -> None:
    schema = {
        "type": "object",
        "description": "gone",
        "required": ["size", "name"],
        "properties": {
            "size": {"type": "integer", "format": "int32", "default": 1, "nullable": True, "minimum": 0},
            "name": {"type": "string", "x-kubernetes-validations": []},
            "free": {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True},
            "words": {"type": "object", "additionalProperties": {"type": "string", "description": "gone"}},
        },
    }
    assert strip_crds.stripped(schema) == {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "size": {"type": ["integer", "null"], "minimum": 0},
            "name": {"type": "string"},
            "free": {"type": "object", "properties": {}, "required": [], "additionalProperties": True},
            "words": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }


def test_the_copy_says_where_it_is_from() -> None:
    assert json.loads(strip_crds.SCHEMAS.read_text("utf-8"))["$comment"] == strip_crds.SOURCE
