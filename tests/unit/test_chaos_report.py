"""What a chaos run tells of itself: recovery times from its logs, and a picture that holds every fault."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from tests.chaos.census import Life
from tests.chaos.inject import Strike
from tests.chaos.picture import picture
from tests.chaos.play import Round
from tests.chaos.recovery import recoveries, summary
from tests.chaos.schedule import Fault, Kind
from tests.chaos.supervisor import Said

SAID = [
    Said(100.0, "INFO metrics at http://127.0.0.1:1/metrics"),
    Said(110.5, "WARNING lane lost: rank 1 died [stage=x lane=denoise-0@tiny]"),
    Said(111.0, "WARNING lane lost: died [stage=x lane=decode-1@tiny]"),
    Said(115.0, "INFO lane is back [stage=x lane=denoise-0@tiny]"),
    Said(118.0, "INFO lane is back [stage=x lane=decode-1@tiny]"),
    Said(121.0, "WARNING lane lost: died [stage=x lane=write-0]"),
    Said(140.0, "INFO metrics at http://127.0.0.1:1/metrics"),
    Said(141.0, "INFO lane is back [stage=x lane=write-0]"),
]


def strike(kind: Kind, at: float, until: float | None = None, **hit: Any) -> Strike:
    fault = Fault(0, kind, 0, 1, 1.0, 0.0, point="stage.done" if kind == "point" else "")
    return Strike(fault, at, until or at, "somebody", hit)


def test_a_recovery_is_from_the_kill_to_the_lane_that_is_back() -> None:
    struck = [strike("kill_rank", 110.0), strike("kill_decoder", 110.9), strike("kill_driver", 130.0)]
    assert list(recoveries(SAID, struck, detached=True)) == [
        ("kill_rank", 5.0),
        ("kill_decoder", pytest.approx(7.1)),
        ("kill_driver, detached lanes", 10.0),
    ]


def test_a_loss_that_another_driver_healed_or_that_came_much_later_is_not_counted() -> None:
    assert not list(recoveries(SAID, [strike("kill_writer", 120.9), strike("kill_rank", 90.0)], detached=False))


def test_the_summary_gives_median_and_most() -> None:
    assert summary([("a", 1.0), ("a", 2.0), ("a", 9.0)]) == {"a": {"n": 3, "median_s": 2.0, "most_s": 9.0}}


def test_the_picture_is_well_formed_and_holds_every_fault_of_every_round() -> None:
    lives = [
        Life(7, "rank", "node-1", 1.0, 4.0),
        Life(8, "rank", "node-2", 5.0, 9.0),
        Life(9, "driver", "head", 0.0, 9.0),
    ]
    made = Round(1, "s3://b/round-1", True, began=0.0, ended=10.0, lives=lives)
    struck = [strike("kill_rank", 4.0, pid=7), strike("s3_slow", 2.0, 6.0, met=4), strike("point", 9.0, pid=9)]
    drawn = ElementTree.fromstring(picture([made], struck))
    titles = [title.text or "" for title in drawn.iter("{http://www.w3.org/2000/svg}title")]
    for each in struck:
        assert [title for title in titles if title.startswith(f"{each.fault.title}: somebody at {each.at:.1f} s")]
    rows = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text") if text.get("text-anchor") == "end"]
    assert rows == ["driver", "rank", "nodes", "s3"], "the second rank takes the line of the first, which had died"
