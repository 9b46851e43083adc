"""A run on Ray that makes traces: every order has its spans, and those of two processes join up."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import ray

from jobs.config import resolve
from tests.fakes.roles import LIGHT, script
from tests.ray.fleets import World, actors
from tests.ray.runs import INPUTS, Finished, row, synthesize
from tests.servers.cluster import RayCluster
from tests.servers.collector import Collector, Seen, collector

pytestmark = pytest.mark.ray

LANES = {
    "text": "text lane",
    "encode": "encode lane",
    "denoise": "denoise lane",
    "decode": "decode lane",
    "write": "write lane",
    "commit": "write lane",
    "fail": "write lane",
}


@pytest.fixture(scope="module")
def traced(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Collector, Finished]:
    """Two sessions of two chunks, and one whose start is torn."""
    folder = tmp_path_factory.mktemp("traced")
    (folder / "torn.png").write_bytes((INPUTS / "harbour.png").read_bytes()[:400])
    rows = [row("s1"), row("torn", image=str(folder / "torn.png"), prompt="Another."), row("s2")]
    with collector() as kept:
        finished = synthesize(folder, rows, "laptop", "--set", f"telemetry.traces={kept.url}")
        assert finished.status == 3
    return kept, finished


def test_every_order_has_a_span_here_and_one_in_its_lane(traced: tuple[Collector, Finished]) -> None:
    kept, _ = traced
    sent = Counter(span.name for span in kept.spans if span.process["service.instance.id"] == "control")
    assert sent == {
        "session": 3,
        "chunk": 4,
        "text": 2,
        "encode": 3,
        "denoise": 4,
        "decode": 4,
        "write": 2,
        "commit": 2,
        "fail": 1,
        "publish": 1,
    }
    lanes = Counter(span.name for span in kept.spans if span.name.endswith(" lane"))
    assert lanes == {"text lane": 2, "encode lane": 3, "denoise lane": 4, "decode lane": 4, "write lane": 6}


def test_parents_join_up_across_processes_and_times_nest(traced: tuple[Collector, Finished]) -> None:
    kept, _ = traced
    by_id = {span.id: span for span in kept.spans}
    for name, inner in LANES.items():
        for span in kept.named(name):
            (child,) = (each for each in kept.named(inner) if each.parent == span.id)
            assert (child.trace, child.about["session"]) == (span.trace, span.about["session"])
            assert child.process["service.instance.id"] == span.about["lane"]
            assert child.process["process.pid"] != span.process["process.pid"]
            assert span.began <= child.began <= child.ended <= span.ended
            parent = by_id[span.parent]
            assert parent.name == ("chunk" if name in ("denoise", "decode", "write") else "session")
            assert parent.began <= span.began
            assert span.ended <= parent.ended
    for chunk in kept.named("chunk"):
        assert by_id[chunk.parent].name == "session"
        assert by_id[chunk.parent].trace == chunk.trace
    assert len({span.trace for span in kept.named("session")}) == 3, "a trace each"


def test_spans_tell_what_and_where_and_how_long_it_waited(traced: tuple[Collector, Finished]) -> None:
    kept, finished = traced
    denoise = kept.one("denoise", session="s1", chunk=1)
    assert denoise.about["lane"] == "denoise-0@tiny-gamecraft"
    assert {"preset": "tiny-gamecraft", "sp_degree": 1, "stage": "denoise"}.items() <= denoise.about.items()
    assert denoise.about["queue_seconds"] >= 0
    assert denoise.process["run"] == json.loads((finished.out / "run.json").read_text())["run_id"]
    (work,) = (span for span in kept.named("denoise lane") if span.parent == denoise.id)
    assert work.events == ["step"] * 3
    decode = _lane(kept, "decode", session="s1", chunk=0)
    pixels, video = (
        next(span for span in kept.named(name) if span.parent == decode.id) for name in ("pixels", "encode video")
    )
    assert decode.began <= pixels.began <= pixels.ended == video.began <= video.ended <= decode.ended


def test_what_failed_says_so_in_every_process(traced: tuple[Collector, Finished]) -> None:
    kept, _ = traced
    failed = {(span.name, span.about["session"], span.about["error.type"]) for span in kept.spans if span.failed}
    assert {("session", "torn"), ("encode", "torn"), ("encode lane", "torn")} == {each[:2] for each in failed}
    assert len({each[2] for each in failed}) == 1


def test_a_fleet_without_traces_imports_nothing_for_them(ray_cluster: RayCluster) -> None:
    """What a lane's process has imported after it has worked, as it says itself."""
    with World(resolve("tiny-gamecraft").fleet, LIGHT) as world:
        lane = world.lane("decode")
        world.wait(lane.run(script("work"), ()))
        (actor,) = actors(lane)
        assert ray.get(actor.imported.remote("opentelemetry")) == []


def _lane(kept: Collector, stage: str, **about: Any) -> Seen:
    sent = kept.one(stage, **about)
    (found,) = (span for span in kept.named(LANES[stage]) if span.parent == sent.id)
    return found
