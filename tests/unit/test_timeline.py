"""The timeline: a track per lane, slices in microseconds, a bounded number of them."""

from __future__ import annotations

import json
from typing import Any

from gamecraft_core.base.errors import LaneLost
from gamecraft_core.base.messages import Receipt, Stage
from orchestrator.timeline import Timeline
from tests.fakes.lanes import FakeLane
from tests.fakes.sessions import session


def receipt(stage: Stage, lane: str, started: float, ended: float, **facts: Any) -> Receipt:
    return Receipt(stage=stage, session_id="s", index=2, lane=lane, started=started, ended=ended, facts=facts)


def events(timeline: Timeline) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(timeline.to_json())["traceEvents"]
    return found


def test_slices_and_tracks() -> None:
    timeline = Timeline()
    timeline.settled(session(), receipt("decode", "decode-0", 11.0, 13.0, decoded=12.5), 0.0, 13.0)
    timeline.settled(session(), receipt("denoise", "denoise-0", 10.0, 12.0), 0.0, 12.0)
    names = {event["tid"]: event["args"]["name"] for event in events(timeline) if event["name"] == "thread_name"}
    slices = {(names[e["tid"]], e["cat"]): (e["ts"], e["dur"]) for e in events(timeline) if e["ph"] == "X"}
    assert slices == {
        ("denoise-0", "denoise"): (0, 2_000_000),
        ("decode-0", "decode"): (1_000_000, 1_500_000),
        ("decode-0 video encoding", "encode video"): (2_500_000, 500_000),
    }
    assert timeline.overlap_ratio() == 0.5


def test_slices_of_one_track_never_overlap() -> None:
    timeline = Timeline()
    for started, ended in ((0.0, 2.0), (1.0, 3.0), (2.5, 4.0)):
        timeline.settled(session(), receipt("write", "write-0", started, ended), 0.0, ended)
    names = {event["tid"]: event["args"]["name"] for event in events(timeline) if event["name"] == "thread_name"}
    slices = sorted((e["ts"], names[e["tid"]]) for e in events(timeline) if e["ph"] == "X")
    assert [track for _, track in slices] == ["write-0", "write-0 (2)", "write-0"]


def test_the_latest_events_are_kept() -> None:
    timeline = Timeline(max_events=3)
    for number in range(9):
        timeline.settled(session(), receipt("write", "write-0", number, number + 1), 0.0, 0.0)
    assert [e["ts"] for e in events(timeline) if e["ph"] == "X"] == [0, 1_000_000, 2_000_000]
    assert json.loads(timeline.to_json())["otherData"] == {"receipts": 9, "receipts_left_out": 6}


def test_the_overlap_is_that_of_the_whole_run() -> None:
    timeline = Timeline(max_events=2)
    for number in range(10):
        timeline.settled(session(), receipt("denoise", "denoise-0", number, number + 0.5 * (number < 5)), 0.0, 0.0)
        timeline.settled(session(), receipt("decode", "decode-0", number, number + 0.5), 0.0, 0.0)
    assert timeline.overlap_ratio() == 0.5


def test_lanes_that_come_and_go_are_marked() -> None:
    timeline, lane = Timeline(), FakeLane("denoise-1", "denoise", lambda order: 0.0)
    timeline.settled(session(), receipt("denoise", "denoise-0", 10.0, 12.0), 0.0, 12.0)
    timeline.lane_joined(lane, 11.0)
    timeline.lane_lost(lane, LaneLost("killed"), 12.0)
    timeline.lane_back(lane, 13.0)
    timeline.lane_left(lane, 14.0)
    marks = [(event["ts"], event["name"]) for event in events(timeline) if event["ph"] == "i"]
    assert marks == [
        (1_000_000, "denoise-1 joined"),
        (2_000_000, "lost denoise-1: killed"),
        (3_000_000, "denoise-1 is back"),
        (4_000_000, "denoise-1 left"),
    ]


def test_an_empty_timeline_is_still_a_trace() -> None:
    assert [event["ph"] for event in events(Timeline())] == ["M"]


def test_a_tenant_sees_its_own_sessions_and_that_lanes_are_busy_for_others() -> None:
    timeline, lane = Timeline(), FakeLane("decode-0", "decode", lambda order: 0.0)
    timeline.settled(session(tenant="ours"), receipt("denoise", "denoise-0", 10.0, 12.0), 0.0, 12.0)
    theirs = receipt("decode", "decode-0", 12.0, 13.0, decoded=12.5)
    theirs.session_id = "their-secret"
    timeline.settled(session(tenant="theirs"), theirs, 0.0, 13.0)
    timeline.lane_lost(lane, LaneLost("while it ran decode their-secret 2"), 13.0)
    seen = timeline.to_json("ours").decode()
    assert "their-secret" not in seen
    shown = [(e["name"], e["args"]) for e in json.loads(seen)["traceEvents"] if e["ph"] == "X"]
    assert shown == [
        ("denoise s #2", {"session": "s", "chunk": 2}),
        ("decode of another tenant", {}),
        ("encode video of another tenant", {}),
    ]
    assert '"lost decode-0"' in seen
    assert "their-secret" in timeline.to_json("theirs").decode()
    assert "their-secret 2" in timeline.to_json().decode(), "the operator's, with why"


def test_only_the_last_moments_are_shown() -> None:
    timeline, lane = Timeline(), FakeLane("write-0", "write", lambda order: 0.0)
    for number in range(9):
        timeline.settled(session(), receipt("write", "write-0", number, number + 1), 0.0, 0.0)
        timeline.lane_joined(lane, float(number))
    found = [(event["ph"], event["ts"]) for event in json.loads(timeline.to_json(since=8.0))["traceEvents"][2:]]
    assert found == [("X", 0), ("X", 1_000_000), ("i", 1_000_000)], "chunks that ended by then, and a lane since"
