"""Credentials planted wherever they may stand reach no error, log line, refused row or stored configuration."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base import logs
from gamecraft_core.base.errors import BadInput, FramelaneError, StoreUnavailable, UsageError
from gamecraft_core.base.redact import redact
from gamecraft_core.base.store import open_store
from jobs.config import RunConfig, identity, public, resolve, with_endpoint
from jobs.synthesize import main
from orchestrator.manifest.manifest import Manifest
from orchestrator.manifest.rows import RowErrors
from tests.fakes.log_lines import set_up
from tests.fakes.malformed import row
from tests.fakes.presets import tiny_preset

KEY_ID = "AKIAPLANTEDPLANTED22"
SECRET = "planted/se+cret/0123456789"

LEAKS = [
    f"http://planted:{SECRET}@host:7480/bucket/key",
    f"http://planted:{SECRET}@host",
    "http://planted@host/bucket",
    f"s3://{KEY_ID}:{SECRET}@bucket/key.png",
    "https://host/b/k?X-Amz-Credential=planted%2F20260101&X-Amz-Signature=planted",
    "s3://bucket/key?versionId=planted",
    f"aws_secret_access_key={SECRET}",
    f"AWS_SECRET_ACCESS_KEY: '{SECRET}'",
    f'{{"aws_session_token": "{SECRET}"}}',
    f"Authorization: AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/us-east-1, SignedHeaders=host, Signature=planted",
    "authorization: Bearer planted",
    f"The AWS Access Key Id {KEY_ID} you provided does not exist",
    "x-amz-security-token=planted",
]


def clean(text: str) -> bool:
    return "planted" not in text.lower() and SECRET[-10:] not in text


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("frame", ["{}", "cannot read {}: no", "('{}', 3)", 'to "{}".', "a\n{}\nb"])
def test_a_credential_is_taken_out_of_any_text(leak: str, frame: str) -> None:
    assert not clean(frame.format(leak))
    found = redact(frame.format(leak))
    assert clean(found), found
    assert redact(found) == found
    for error in (BadInput, StoreUnavailable):
        met = error(frame.format(leak), field="image", remedy=frame.format(leak))
        assert clean(repr(met) + str(met) + met.message + met.remedy)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/folder@v1/key.png does not exist",
        "http://host:7480/bucket/key@v1",
        "mail me@example.org about /a/b?",
        "row 3, image: 8000x8001 is outside the limit (scale it down)",
        "unknown column 'password'",
        "jobs/presets/tiny.yaml: secret keeper",
        "",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact(text, {}) == text


def test_what_the_environment_keeps_is_never_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"planted-{name}")
        assert FramelaneError(f"the server said: planted-{name}!").message == "the server said: ***!"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    assert redact("a test") == "a test"


@given(st.text(max_size=60), st.text("ab:/@?&=. '\"", max_size=40))
def test_any_text_can_be_searched(first: str, second: str) -> None:
    for text in (first + second, f"s3://{second}{first}", second * 50):
        assert redact(redact(text, {}), {}) == redact(text, {})


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_lines_and_tracebacks_hold_none(form: logs.Form, capsys: pytest.CaptureFixture[str]) -> None:
    with set_up(form):
        for leak in LEAKS:
            logging.getLogger("framelane.test").warning("met %s", leak, extra={"session": leak})
            logging.getLogger("botocore.retries").warning("%s", leak)
            try:
                raise ConnectionError(leak)
            except ConnectionError:
                logging.getLogger("framelane.test").exception("failed")
    written = capsys.readouterr().err
    assert written.count("Traceback") == len(LEAKS)
    assert clean(written)


def test_a_store_that_cannot_be_reached_does_not_tell_its_password(aws_keys: None) -> None:
    options = {"endpoint_url": f"http://planted:{SECRET.replace('/', '%2F')}@127.0.0.1:9/", "attempts": 1}
    store = open_store("s3://bucket/prefix", options)
    for act in (store.get, store.exists, lambda key: store.put_if_absent(key, b"x")):
        with pytest.raises((StoreUnavailable, UsageError)) as caught:
            act("key")
        assert "cannot" in caught.value.message
        assert clean(str(caught.value) + repr(caught.value))


def test_no_stored_configuration_holds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    config: RunConfig = with_endpoint(
        resolve("tiny-gamecraft", sets=[f"sampling.negative_prompt={SECRET}"]),
        {"AWS_ENDPOINT_URL": f"https://planted:{SECRET}@host:7480"},
    )
    assert not clean(config.store.endpoint_url or "")
    for stored in (public(config), identity(config)):
        assert clean(json.dumps(stored))
    assert public(config)["store"]["endpoint_url"] == "https://host:7480"


def test_no_refused_row_quotes_one(tmp_path: Path, aws_keys: None) -> None:
    lines = []
    for leak in LEAKS:
        lines += [row(image=leak), row(image=None, video=leak), row(actions=f"poses:{leak.replace(' ', '')}")]
        lines += [row(actions=leak), row(preset=leak), row(priority=leak), row(session_id=leak), row(seed=leak)]
        lines += [row(**{leak: "x"}), row(actions=[{"action": leak}]), row(actions=[{leak: 1}]), leak.encode()]
        lines += [row(image="x" * 60 + leak), row(tenant=[leak]), row(height={leak: leak})]
    (tmp_path / "manifest.jsonl").write_bytes(b"\n".join(line.replace(b"\n", b" ") for line in lines))
    preset = tiny_preset()
    found = list(Manifest(str(tmp_path / "manifest.jsonl"), {preset.name: preset}, preset.name).rows())
    assert len(found) == len(lines)
    for each in found:
        assert isinstance(each, RowErrors)
        assert clean(str([(error.field, error.reason, error.remedy) for error in each.errors])), each


@pytest.mark.parametrize("leak", [leak for leak in LEAKS if "://" in leak])
@pytest.mark.parametrize("option", ["--manifest", "--out", "--fleet", "--preset", "--address", "--set", "--run-id"])
def test_no_command_line_error_repeats_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], leak: str, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.jsonl").write_bytes(row(image="none.png"))
    given_options = {"--preset": "tiny-gamecraft", "--manifest": "m.jsonl", "--out": "out", option: leak}
    argv = [word for pair in given_options.items() for word in pair]
    assert main([*argv, "--strict"]) == 2
    assert clean("".join(capsys.readouterr()))
