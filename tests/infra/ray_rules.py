"""What must hold for Ray's part of the manifests, beyond their schemas: sizes, times, commands, fleets that fit."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import yaml
from ray.scripts.scripts import start
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

from actors.fleet_spec import FleetSpec
from gamecraft_core.base.errors import FramelaneError
from jobs import gateway, synthesize
from jobs.config import RunConfig, load_fleet, resolve
from tests.infra.documents import ROOT, Document, Folder, found
from tests.infra.pods import Pods, cluster_spec, groups

#: Seconds that Ray gives its processes to end, after a drain.
RAY_ENDS_S = 30
#: Seconds that a run or the gateway needs after its grace to take lanes down.
LANES_END_S = 15

_DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
_START_OPTIONS = {name.removeprefix("--") for option in start.params for name in option.opts}


def problems(folder: Folder) -> Iterator[str]:
    """What is wrong with the folder's clusters, jobs and services."""
    for name, document in folder.items():
        if (spec := cluster_spec(document)) is None:
            continue
        pods = {each.role: each for each in groups({name: document})}
        checks = [*_cluster(spec), *_start_params(pods), *_drains(pods)]
        if document["kind"] == "RayJob":
            checks += _job(document["spec"], pods)
        elif document["kind"] == "RayService":
            checks += _service(document["spec"], pods)
        else:
            checks += _room(spec, pods["worker"], "8xa100-throughput")
        yield from (f"{name}: {check}" for check in checks)
    yield from _same_pods(folder)


def _cluster(spec: Document) -> Iterator[str]:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").split())["ray"]
    if spec["rayVersion"] != pinned:
        yield f"rayVersion {spec['rayVersion']} is not the pinned {pinned}"
    if spec.get("authOptions", {}).get("mode") != "token":
        yield "Ray asks nobody for a token"
    scaler = spec.get("autoscalerOptions", {})
    if not spec.get("enableInTreeAutoscaling") or scaler.get("version") != "v2":
        yield "does not scale with Ray's autoscaler v2"
    elif scaler["idleTimeoutSeconds"] < load_fleet("8xa100-elastic").elastic.idle_seconds:
        yield "takes nodes away sooner than an elastic fleet leaves them"
    for group in spec["workerGroupSpecs"]:
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{group['groupName']}: minReplicas <= replicas <= maxReplicas does not hold"
    for policy in found(spec, "restartPolicy"):
        if policy != "Never":
            yield f"restartPolicy {policy}: autoscaler v2 wants each pod to be one node"


def _start_params(pods: dict[str, Pods]) -> Iterator[str]:
    for each in (pods["head"], pods["worker"]):
        for name in each.params.keys() - _START_OPTIONS:
            yield f"rayStartParams has {name}, which is no option of ray start"
        (resources,) = shlex.split(each.params.get("resources", "{}"))
        if not all(isinstance(count, int | float) for count in json.loads(resources).values()):
            yield f"rayStartParams: resources {resources} are not counts"
    if pods["head"].params.get("num-cpus") != "0":
        yield "lanes may come to the head"


def _drains(pods: dict[str, Pods]) -> Iterator[str]:
    for each in (pods["head"], pods["worker"]):
        drain = int(each.environment().get(_DRAIN, 0))
        if drain + RAY_ENDS_S > each.spec.get("terminationGracePeriodSeconds", 30):
            yield f"{each.role}: killed before its drain of {drain} s and Ray's end are over"


def _job(spec: Document, pods: dict[str, Pods]) -> Iterator[str]:
    words = shlex.split(spec["entrypoint"])
    if words[:3] != ["python", "-m", "jobs.synthesize"]:
        yield f"entrypoint runs {words[:3]}"
        return
    try:
        given = synthesize.parser().parse_args(words[3:])
        config = resolve(given.preset, given.fleet, given.set)
    except (SystemExit, FramelaneError) as error:
        yield f"entrypoint: {error}"
        return
    environment = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    patience = int(environment.get("RAY_JOB_STOP_WAIT_TIME_S", 3))
    yield from _grace(config, patience, "RAY_JOB_STOP_WAIT_TIME_S")
    if patience > int(pods["head"].environment().get(_DRAIN, 0)):
        yield "the head goes before a stopped job is killed"
    if pods["head"].ports.get("run") != given.metrics_port:
        yield f"--metrics-port {given.metrics_port} is not the head's port `run`"
    yield from _room(spec["rayClusterSpec"], pods["worker"], given.fleet)


def _service(spec: Document, pods: dict[str, Pods]) -> Iterator[str]:
    config = yaml.safe_load(spec["serveConfigV2"])
    if unknown := list(_unknown_keys(config)):
        yield from unknown
        return
    try:
        ServeDeploySchema.model_validate(config)
        (application,) = config["applications"]
        given = gateway.Arguments.model_validate(application["args"])
        resolved = resolve(given.preset, given.fleet, given.settings)
    except (ValueError, FramelaneError) as error:
        yield f"serveConfigV2: {error}"
        return
    if application["import_path"] != f"{gateway.__name__}:{gateway.build.__name__}":
        yield f"import_path {application['import_path']} is not the gateway's"
    if application["name"] != gateway.APPLICATION or application["route_prefix"] != "/":
        yield "the application has another name or prefix than jobs.serve gives it"
    for deployment in application.get("deployments", ()):
        if deployment["name"] != gateway.DEPLOYMENT:
            yield f"there is no deployment {deployment['name']}"
        wanted = deployment.get("ray_actor_options", {}).get("resources", {})
        (there,) = shlex.split(pods["head"].params.get("resources", "{}"))
        if not wanted or any(2 * count > json.loads(there).get(name, 0) for name, count in wanted.items()):
            yield f"the head has no room for two replicas, one of which replaces the other: {wanted}"
    folder = {each["mountPath"] for each in pods["head"].container["volumeMounts"]}
    if given.tokens is None or given.tokens.rpartition("/")[0] not in folder:
        yield f"nothing is mounted where the tokens should be: {given.tokens}"
    if pods["head"].ports.get("serve") != config["http_options"]["port"]:
        yield "Serve listens on another port than the head's `serve`"
    if spec.get("upgradeStrategy", {}).get("type") != "None":
        yield "an upgrade would run one output's sessions on two clusters at once"
    yield from _grace(resolved, int(pods["head"].environment().get(_DRAIN, 0)), _DRAIN)
    yield from _room(spec["rayClusterConfig"], pods["worker"], given.fleet)


def _unknown_keys(config: Document) -> Iterator[str]:
    """Unknown keys, which Serve's own schema lets pass."""
    for application in config.get("applications", ()):
        for name in application.keys() - ServeApplicationSchema.model_fields.keys():
            yield f"serveConfigV2: an application has no {name}"
        for deployment in application.get("deployments", ()):
            for name in deployment.keys() - DeploymentSchema.model_fields.keys():
                yield f"serveConfigV2: a deployment has no {name}"
    for name in config.keys() - ServeDeploySchema.model_fields.keys():
        yield f"serveConfigV2: there is no {name}"


def _grace(config: RunConfig, patience: int, name: str) -> Iterator[str]:
    wanted = config.limits.grace_seconds + LANES_END_S
    if patience < wanted:
        yield f"{name} is {patience}: limits.grace_seconds and lanes that end take {wanted:g}"


def _room(spec: Document, worker: Pods, name: str) -> Iterator[str]:
    """The fleet fits the nodes: what it begins with those that are there, all of it those that may come."""
    (group,) = spec["workerGroupSpecs"]
    fleet = load_fleet(name)
    # A cluster without nodes of its own gets its first one from the first run's demand.
    for lanes, nodes in ((fleet, max(group["minReplicas"], 1)), (_grown(fleet), group["maxReplicas"])):
        there = (nodes * worker.limit("cpu"), nodes * worker.limit("nvidia.com/gpu"))
        for what, wanted, has in zip(("CPU", "GPU"), lanes.reserved(), there, strict=True):
            if wanted > has:
                yield f"fleet {name} reserves {wanted:g} {what}, {nodes} nodes have {has}"


def _grown(fleet: FleetSpec) -> FleetSpec:
    """``fleet`` with all the lanes that demand may bring."""
    lanes = {role: getattr(fleet, role) for role in ("text", "encode", "decode", "write")}
    larger: dict[str, Any] = {role: each.model_copy(update={"lanes": each.most}) for role, each in lanes.items()}
    larger["denoise"] = tuple(each.model_copy(update={"groups": each.most}) for each in fleet.denoise)
    return fleet.model_copy(update=larger)


def _same_pods(folder: Folder) -> Iterator[str]:
    """The pods of all clusters are those of the RayCluster, whose file explains them."""
    seen: dict[str, tuple[str, str]] = {}
    for pods in groups(folder):
        if pods.role == "submitter":
            continue
        shared = {**pods.template, "params": {**pods.params, "resources": ""}}
        text = json.dumps(_plain(shared), sort_keys=True)
        first, model = seen.setdefault(pods.role, (pods.name, text))
        if text != model:
            yield f"{pods.name} is not like {first}"


def _plain(value: Any) -> Any:
    """``value`` without what tells clusters apart: their component, the ports they serve on, the service's tokens."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if key != "app.kubernetes.io/component"}
    if isinstance(value, list):
        own = ("run", "serve", "tokens")
        return [_plain(each) for each in value if not (isinstance(each, dict) and each.get("name") in own)]
    return value
