"""The service's command line: who may come in, where it listens, and what it refuses before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.datastructures import Headers

from gamecraft_core.base.errors import UsageError
from jobs.gateway import build
from jobs.serve import main
from jobs.service import Place, listening
from orchestrator.http.gate import ANYBODY, Rules, digest


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_this_machine_nobody_needs_a_token_and_only_its_names_are_answered_to(host: str) -> None:
    rules = Place(host, 0).rules()
    assert rules.tokens is None
    assert rules.hosts == {"127.0.0.1", "::1", "localhost", host}
    assert rules.tenant(Headers({})) == ANYBODY


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "play.example"])
def test_where_others_can_come_tokens_are_needed(host: str) -> None:
    with pytest.raises(UsageError, match="can be reached by others") as refused:
        Place(host, 0).rules()
    assert refused.value.field == "tokens"


def test_tokens_name_tenants(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# who\n\nann first-token\nbob second-token\nann another\n")
    rules = Place("0.0.0.0", 0, str(file)).rules()
    assert rules.hosts == frozenset()

    def who(**headers: str) -> str | None:
        return rules.tenant(Headers(headers))

    assert who(authorization="Bearer first-token") == who(authorization="bearer another") == "ann"
    assert who(cookie="a=b; framelane_token=second-token") == "bob"
    assert who() is who(authorization="Basic first-token") is who(cookie="framelane_token=") is None
    assert "first-token" not in repr(rules), "only digests are kept"


@pytest.mark.parametrize("others", ["a=b", "a/b=1", "user@b=1", 'j={"a":1}', "x[]=1", "alone", '"', ""])
def test_a_browsers_cookie_holds_any_token_among_any_others(others: str) -> None:
    rules = Rules(tokens={digest("a+b/c="): "ann"})
    ours = f"framelane_token={quote('a+b/c=', safe='')}"  # as encodeURIComponent writes it
    for cookies in (ours, f"{others}; {ours}", f"{ours}; {others}"):
        assert rules.tenant(Headers({"cookie": cookies})) == "ann"
    assert rules.tenant(Headers({"cookie": others})) is None


@pytest.mark.parametrize("text", ["", "# nobody\n", "ann\n", "ann two tokens\n", "../ann token\n"])
def test_a_file_of_tokens_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        Place("127.0.0.1", 0, str(file)).rules()
    assert refused.value.field == "tokens"
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("origin", "host", "elsewhere"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", False),
        ("http://127.0.0.1:9000", "127.0.0.1:8000", True),
        ("https://evil.example", "127.0.0.1:8000", True),
        ("null", "127.0.0.1:8000", True),
        ("https://page.example", "127.0.0.1:8000", False),
    ],
)
def test_only_its_own_pages_and_named_ones(origin: str, host: str, elsewhere: bool) -> None:
    rules = Rules(origins=frozenset({"https://page.example"}))
    assert rules.from_elsewhere(Headers({"origin": origin, "host": host})) is elsewhere


def test_a_taken_port_and_a_store_that_would_forget_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", "memory://x"]) == 2
    assert "does not outlive" in capsys.readouterr().err
    with listening("127.0.0.1", 0) as taken, pytest.raises(UsageError, match="cannot listen"):
        listening("127.0.0.1", taken.getsockname()[1]).__enter__()


def test_on_ray_serve_tokens_are_needed_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--on", "serve", "--host", "0.0.0.0", "--out", str(tmp_path / "out")]) == 2
    assert "can be reached by others" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_accepted_sends_at_once() -> None:
    with listening("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"preset": "tiny-gamecraft"}, "out"),
        ({"preset": "tiny-gamecraft", "out": "s3://bucket/x", "tokns": "x"}, "tokns"),
        ({"preset": "tiny-gamecraft", "out": "out/serve", "host": "127.0.0.1"}, "out"),
        ({"preset": "tiny-gamecraft", "out": "s3://bucket/x"}, "tokens"),
        ({"out": "s3://bucket/x", "host": "127.0.0.1", "preset": "tiny"}, "preset"),
        (
            {"preset": "tiny-gamecraft", "out": "s3://b", "host": "::1", "settings": ["limits.sesions=1"]},
            "limits.sesions",
        ),
    ],
)
def test_wrong_arguments_of_the_serve_application_are_named(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(arguments)
    assert field in f"{refused.value.field} {refused.value.message}"
    assert refused.value.remedy
