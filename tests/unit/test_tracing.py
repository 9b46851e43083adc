"""Spans: their links, what the caller's context means for them, and that none cost nothing."""

from __future__ import annotations

import logging
import subprocess
import sys
import time

import pytest

from actors.role import current
from gamecraft_core.base.errors import Poisoned, UsageError
from gamecraft_core.base.messages import TextOrder
from gamecraft_core.base.telemetry import Telemetry
from gamecraft_core.base.tracing import PATIENCE_S, Spans, open_spans
from jobs.config import resolve
from tests.fakes.roles import LightActor, script
from tests.servers.child import free_port
from tests.servers.collector import collector

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_spans_have_their_places_times_and_process() -> None:
    with collector() as kept:
        spans = Spans(Telemetry("run-1", traces=kept.url), "control")
        session = spans.start("session", CALLER, 100.0, session="s", row=None)
        chunk = session.child("chunk", 101.0, chunk=0)
        elsewhere = spans.start("lane", chunk.traceparent, 102.0)
        elsewhere.event("step", step=1)
        elsewhere.end(103.0, Poisoned("not finite"))
        chunk.end(104.0)
        session.end(105.0)
        spans.close()
    session_span, chunk_span, lane_span = (kept.one(name) for name in ("session", "chunk", "lane"))
    assert {span.trace for span in kept.spans} == {CALLER.split("-")[1]}
    assert (session_span.parent, chunk_span.parent, lane_span.parent) == (
        CALLER.split("-")[2],
        session_span.id,
        chunk_span.id,
    )
    assert (chunk_span.began, chunk_span.ended) == (101 * 10**9, 104 * 10**9)
    assert (lane_span.failed, lane_span.events, lane_span.about) == (True, ["step"], {"error.type": "Poisoned"})
    assert session_span.about == {"session": "s"}
    assert not session_span.failed
    assert session_span.process["service.name"] == "framelane"
    assert (session_span.process["run"], session_span.process["service.instance.id"]) == ("run-1", "control")


@pytest.mark.parametrize("given", ["", "nonsense", "00-zz-zz-01", "ff-" + CALLER[3:], "00-" + "0" * 32 + CALLER[35:]])
def test_a_malformed_parent_begins_a_trace(given: str) -> None:
    with collector() as kept:
        spans = Spans(Telemetry(traces=kept.url), "control")
        spans.start("session", given).end()
        spans.close()
    assert kept.one("session").parent == ""


def test_who_asked_for_no_trace_gets_none() -> None:
    with collector() as kept:
        spans = Spans(Telemetry(traces=kept.url), "control")
        quiet = spans.start("session", CALLER[:-2] + "00")
        quiet.child("chunk").end()
        quiet.end()
        spans.close()
    assert quiet.traceparent.endswith("-00")
    assert kept.spans == []


def test_a_collector_that_is_not_there_costs_one_line_and_no_time(caplog: pytest.LogCaptureFixture) -> None:
    spans = Spans(Telemetry(traces=f"http://127.0.0.1:{free_port()}/v1/traces"), "control")
    began = time.monotonic()
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            spans.start("session").end()
            spans.flush()
        spans.close()
        assert time.monotonic() - began < 4 * PATIENCE_S + 1
        spans._provider.shutdown()
        told = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert [record.name for record in told] == ["framelane.traces"]


def test_a_lane_carries_orders_out_in_spans_of_its_own() -> None:
    with collector() as kept:
        actor = LightActor("text-0@tiny", {})
        actor.tell(Telemetry("run-1", traces=kept.url))
        parent = Spans(Telemetry(traces=kept.url), "control").start("text")
        order = TextOrder(session_id="s", prompt="work", negative_prompt=None, traceparent=parent.traceparent)
        actor.run(order)
        actor.run(TextOrder(session_id="s", prompt="memory", negative_prompt=None, traceparent=parent.traceparent))
        actor.run(script("work"))
        actor.flush()
        assert current() is None
    well, starved = kept.named("text lane")
    assert well.parent == starved.parent == parent.traceparent.split("-")[2]
    assert (well.failed, starved.failed, starved.about["error.type"]) == (False, True, "OutOfMemory")
    assert well.about == {"session": "s", "stage": "text", "lane": "text-0@tiny"}
    assert well.process["service.instance.id"] == "text-0@tiny"


def test_of_a_group_the_first_rank_makes_spans() -> None:
    second = LightActor("denoise-0@tiny", {})
    second._rank = 1
    second.tell(Telemetry(traces="http://127.0.0.1:9/v1/traces"))
    assert second._spans is None


def test_without_traces_nothing_of_opentelemetry_is_imported() -> None:
    script = """
import sys
from actors.role import answering
from gamecraft_core.base.telemetry import Telemetry
from tests.fakes.roles import LightActor, script
import jobs.run, jobs.work, orchestrator.tracing
actor = LightActor("text-0@tiny", {})
actor.tell(Telemetry("run-1"))
assert actor.run(script("work"))[0].lane == "text-0@tiny"
print([name for name in sys.modules if name.startswith("opentelemetry")])
import jobs.service, jobs.gateway  # FastAPI imports the API itself, where it is installed
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


def test_the_setting_is_an_http_address_and_off_by_default() -> None:
    assert open_spans(resolve("tiny-gamecraft").telemetry.of("run-1"), "control") is None
    url = "http://collector:4318/v1/traces"
    assert resolve("tiny-gamecraft", sets=[f"telemetry.traces={url}"]).telemetry.of("r").traces == url
    with pytest.raises(UsageError, match=r"telemetry\.traces"):
        resolve("tiny-gamecraft", sets=["telemetry.traces=collector:4317"])
