"""The bucket's rules: a policy that allows what the store does and no more, and two that real servers take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from gamecraft_core.base.store_s3 import S3Options, S3Store
from gamecraft_core.dataset import layout
from tests.infra.documents import INFRA
from tests.servers.s3 import S3Server

VALIDATES = ("infra/s3/*.json",)

INPUTS, OUTPUTS = "framelane-inputs", "framelane-outputs"
#: The action that a call of the API needs (AWS' Service Authorization Reference), and whether it is about an object.
ACTIONS = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListObjectsV2": "s3:ListBucket",
    "ListParts": "s3:ListMultipartUploadParts",
    "PutObject": "s3:PutObject",
    "UploadPart": "s3:PutObject",
}


class Need(NamedTuple):
    """An action on a resource."""

    action: str
    resource: str


def rules(name: str) -> Any:
    return json.loads((INFRA / "s3" / name).read_text("utf-8"))


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def grants() -> list[Need]:
    """Each action with each resource that the policy allows it on."""
    statements = rules("policy.json")["Statement"]
    assert all(
        each["Effect"] == "Allow" and each.keys() <= {"Sid", "Effect", "Action", "Resource"} for each in statements
    )
    return [
        Need(action, resource)
        for each in statements
        for action in listed(each["Action"])
        for resource in listed(each["Resource"])
    ]


def covers(grant: Need, need: Need) -> bool:
    return grant.action == need.action and fnmatchcase(need.resource, grant.resource)


def recorded(store: S3Store, needs: list[Need]) -> None:
    """Let ``needs`` hear of every call that ``store`` makes."""

    def hear(model: Any, params: Any, context: Any, **_: Any) -> None:
        bucket = context["input_params"]["Bucket"]
        key = f"/{context['input_params']['Key']}" if "Key" in context["input_params"] else ""
        needs.append(Need(ACTIONS[model.name], f"arn:aws:s3:::{bucket}{key}"))

    store._client.meta.events.register("before-call.s3", hear)


def read_all(store: S3Store) -> Iterator[str]:
    """Every way to read; what each is called."""
    facts = store.stat("key")
    yield "stat"
    assert store.get("key") == b"mine"
    yield "get"
    assert store.get_range("key", 0, 1, facts.version) == b"m"
    yield "get_range"
    assert store.exists("key")
    assert not store.exists("absent")  # without ListBucket the answer to this would be 403
    yield "exists"
    assert "key" in list(store.list(""))
    yield "list"
    assert "key" in [entry.key for entry in store.scan("")]
    yield "scan"


def use_all(store: S3Store, folder: Path) -> Iterator[str]:
    """Everything that a store can do; what each is called."""
    store.put("key", b"mine")
    yield "put"
    assert not store.put_if_absent("key", b"theirs")
    yield "put_if_absent"
    yield from read_all(store)
    large = folder / "large"
    large.write_bytes(b"x" * (9 << 20))
    store.upload("large", large)
    yield "upload"
    store._client.create_multipart_upload(Bucket=OUTPUTS, Key="runs/first/broken")
    for leftover in store.leftovers():
        store.discard(leftover)
    yield "leftovers"
    yield "discard"
    store.try_upload("probe")
    yield "try_upload"
    assert store.server_time() > 0
    yield "server_time"
    store.delete("key")
    yield "delete"


@pytest.fixture
def stores(moto_server: S3Server) -> Iterator[tuple[S3Store, S3Store]]:
    """Inputs and outputs as the manifests have them, with one object among the inputs."""
    for bucket in (INPUTS, OUTPUTS):
        moto_server.client.create_bucket(Bucket=bucket)
    options = S3Options(endpoint_url=moto_server.endpoint)
    S3Store(f"s3://{INPUTS}", options).put("key", b"mine")
    yield S3Store(f"s3://{INPUTS}", options), S3Store(f"s3://{OUTPUTS}/runs/first", options)
    for bucket in (INPUTS, OUTPUTS):
        for found in moto_server.client.list_objects_v2(Bucket=bucket).get("Contents", ()):
            moto_server.client.delete_object(Bucket=bucket, Key=found["Key"])
        moto_server.client.delete_bucket(Bucket=bucket)


def test_the_policy_allows_what_the_store_does_and_nothing_else(
    stores: tuple[S3Store, S3Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gamecraft_core.base.store_s3._PART_BYTES", 5 << 20)
    inputs, outputs = stores
    needs: list[Need] = []
    recorded(inputs, needs)
    recorded(outputs, needs)
    done = {*read_all(inputs), *use_all(outputs, tmp_path)}
    assert done == {name for name in vars(S3Store) if not name.startswith("_")} - {"uri"}, "something is not used here"
    refused = {need for need in needs if not any(covers(grant, need) for grant in grants())}
    assert not refused
    unused = [grant for grant in grants() if not any(covers(grant, need) for need in needs)]
    assert not unused


@pytest.mark.parametrize("action", sorted({*ACTIONS.values(), "s3:PutObjectAcl", "s3:DeleteBucket", "iam:PassRole"}))
def test_inputs_can_only_be_read(action: str) -> None:
    need = Need(action, f"arn:aws:s3:::{INPUTS}/manifest.jsonl")
    assert any(covers(grant, need) for grant in grants()) == (action == "s3:GetObject")
    assert not any("*" in grant.action or grant.resource == "*" for grant in grants())


def test_it_is_a_policy(moto_server: S3Server) -> None:
    """moto's IAM refuses what AWS calls malformed."""
    import boto3

    client = boto3.session.Session().client("iam", endpoint_url=moto_server.endpoint, region_name="us-east-1")
    made = client.create_policy(PolicyName="framelane", PolicyDocument=json.dumps(rules("policy.json")))
    client.delete_policy(PolicyArn=made["Policy"]["Arn"])
    broken = rules("policy.json")
    broken["Statement"][0]["Efect"] = broken["Statement"][0].pop("Effect")
    with pytest.raises(client.exceptions.MalformedPolicyDocumentException):
        client.create_policy(PolicyName="framelane", PolicyDocument=json.dumps(broken))


def test_a_server_takes_the_lifecycle(s3_server: S3Server) -> None:
    wanted = rules("lifecycle.json")
    bucket, client = s3_server.new_bucket(), s3_server.client
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=wanted)
    got = client.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert {rule["ID"]: spelt(rule) for rule in got["Rules"]} == {rule["ID"]: spelt(rule) for rule in wanted["Rules"]}


def spelt(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule with its prefix in the older place, where some servers answer an empty one."""
    rest = {key: value for key, value in rule.items() if key not in ("Filter", "Prefix")}
    return {**rest, "Prefix": rule["Filter"]["Prefix"] if "Filter" in rule else rule["Prefix"]}


def test_only_what_a_run_can_make_again_expires() -> None:
    for rule in rules("lifecycle.json")["Rules"]:
        assert rule["Status"] == "Enabled"
        assert rule.keys() <= {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload", "Expiration"}
        if "Expiration" in rule:
            assert re.fullmatch(rf".+/{layout.STAGING}/", rule["Filter"]["Prefix"])
            assert rule["Expiration"]["Days"] >= 30, "a run may pause for long"
        else:
            assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] >= 2, (
                "an upload of weights may take a day"
            )


def test_a_browser_of_the_named_page_may_play(s3_server: S3Server) -> None:
    wanted = rules("cors.json")
    (rule,) = wanted["CORSRules"]
    (page,) = rule["AllowedOrigins"]
    bucket, client = s3_server.new_bucket(), s3_server.client
    client.put_bucket_cors(Bucket=bucket, CORSConfiguration=wanted)
    (got,) = client.get_bucket_cors(Bucket=bucket)["CORSRules"]
    assert {key: sorted(listed(value)) if isinstance(value, list) else value for key, value in got.items()} == {
        key: sorted(value) if isinstance(value, list) else value for key, value in rule.items()
    }
    client.put_object(Bucket=bucket, Key="video.mp4", Body=b"0123456789")
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "video.mp4"})
    answer = httpx.get(url, headers={"Origin": page, "Range": "bytes=2-3"})
    assert (answer.status_code, answer.content) == (206, b"23")
    if s3_server.name == "rgw":  # moto keeps the rules and does not act on them
        assert answer.headers["access-control-allow-origin"] == page
        exposed = answer.headers["access-control-expose-headers"].replace(" ", "").lower().split(",")
        assert "content-range" in exposed
        assert "access-control-allow-origin" not in httpx.get(url, headers={"Origin": "https://other.example"}).headers
        ask = {"Origin": page, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}
        assert httpx.options(url, headers=ask).status_code == 200
        assert httpx.options(url, headers={**ask, "Access-Control-Request-Method": "PUT"}).status_code == 403
