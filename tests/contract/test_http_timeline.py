"""``/v1/timeline``: a run's trace of the last minutes, to each tenant its own; and callers' trace contexts."""

from __future__ import annotations

import json
from typing import Any

import httpx

from gamecraft_core.base.telemetry import Telemetry
from gamecraft_core.base.tracing import Spans
from orchestrator.http.client import Client
from orchestrator.http.gate import Rules, digest
from orchestrator.tracing import Traces
from tests.fakes.studio import Studio
from tests.fakes.web import begun, finished, quick_studio, served
from tests.servers.collector import collector

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def slices(http: httpx.Client, **query: float) -> list[dict[str, Any]]:
    answer = http.get("/v1/timeline", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return [event for event in answer.json()["traceEvents"] if event["ph"] == "X"]


def test_a_session_that_was_made_is_drawn_on_its_lanes() -> None:
    with served(quick_studio) as web, httpx.Client(base_url=web.url) as http, Client(web.url) as client:
        assert slices(http) == []
        name = finished(client, http, "w d")
        drawn = slices(http, minutes=1)
        assert {event["cat"] for event in drawn} >= {"text", "encode", "denoise", "decode", "write"}
        chunks = [event["args"] for event in drawn if event["cat"] == "denoise"]
        assert chunks == [{"session": name, "chunk": 0}, {"session": name, "chunk": 1}]
        for wrong in ("0", "-1", "61", "nan", "x"):
            assert http.get("/v1/timeline", params={"minutes": wrong}).status_code == 422
        description = http.get("/openapi.json").json()["paths"]
        assert "/v1/timeline" in description


def test_a_tenant_learns_of_no_other_tenants_session() -> None:
    rules = Rules({digest("a-token"): "a", digest("b-token"): "b"})
    with served(quick_studio, rules) as web:
        heads = {name: {"Authorization": f"Bearer {name}-token"} for name in ("a", "b")}
        assert httpx.get(f"{web.url}/v1/timeline").status_code == 401
        with (
            httpx.Client(base_url=web.url, headers=heads["a"]) as http,
            Client(web.url, token="a-token") as client,
            httpx.Client(base_url=web.url, headers=heads["b"]) as other,
        ):
            name = finished(client, http, "w")
            assert name in json.dumps(slices(http))
            seen = slices(other)
            assert len(seen) == len(slices(http)), "it sees how busy lanes are"
            assert name not in json.dumps(seen)
            assert {tuple(event["args"]) for event in seen} == {()}


def test_a_session_continues_its_callers_trace() -> None:
    with collector() as kept:
        spans = Spans(Telemetry("service", traces=kept.url), "control")

        class Traced(Studio):
            """Makes traces as ``jobs.service`` does."""

            async def start(self) -> None:
                await super().start()
                self.engine._traces = Traces(spans, self.registry.traceparent)
                self.engine._listeners.append(self.engine._traces)  # type: ignore[attr-defined]

        with (
            served(lambda: quick_studio(kind=Traced)) as web,
            httpx.Client(base_url=web.url) as http,
            Client(web.url) as client,
        ):
            http.headers["traceparent"] = CALLER
            name = finished(client, http, "w d")
            http.headers["traceparent"] = "not one"
            other = str(begun(http)["id"])
            http.delete(f"/v1/sessions/{other}")
        spans.close()
    session = kept.one("session", session=name)
    assert (session.trace, session.parent) == (CALLER.split("-")[1], CALLER.split("-")[2])
    assert {span.trace for span in kept.named("denoise")} == {session.trace}
    stray = kept.one("session", session=other)
    assert stray.parent == ""
    assert stray.failed, "called off"
