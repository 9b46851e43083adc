"""Plans and profiles of families without a camera: whole videos, and sections that overlap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gamecraft_core.costs.stages import StageCosts
from jobs import bench, plan
from jobs.cards import load_hardware
from jobs.config import load_preset
from jobs.memory import table
from orchestrator.plan.load import Load, simulate
from orchestrator.plan.predict import lanes_of
from tests.unit.test_plan import APART, Fixed

HARDWARE = load_hardware()
CLUSTER = ["--cluster", "2xcpu", "--sessions", "2"]
#: Published: HunyuanVideo at 720p, 129 frames, 50 steps on H100.
PUBLISHED = {1: 1904, 2: 934, 4: 514, 8: 338}


@pytest.mark.parametrize(("degree", "seconds"), PUBLISHED.items())
def test_a_whole_video_takes_about_as_long_as_published(degree: int, seconds: float) -> None:
    preset = load_preset("hunyuan-video")
    costs = StageCosts(preset, "H100-80", HARDWARE.cards["H100-80"], HARDWARE.cards["cpu"], HARDWARE.common)
    assert costs.denoise(degree, continuing=False).seconds.value == pytest.approx(seconds, rel=0.13)


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert plan.main([*CLUSTER, *arguments, "--json"]) == 0
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    return values


def test_a_whole_video_is_one_chunk_that_begins_from_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    values = planned(capsys, "--preset", "tiny-hunyuan-video")
    assert values["load"]["chunks"] == 1
    told = values["stage_seconds"]
    assert "denoise whole video, SP1" in told
    assert not [name for name in told if "next chunk" in name or "image" in name or "first" in name]
    alone = next(each for each in values["layouts"] if each["name"].startswith("1×SP2"))["figures"]
    assert alone["latency_p50_seconds"]["value"] == alone["first_chunk_seconds"]["value"]
    assert plan.main([*CLUSTER, "--preset", "tiny-hunyuan-video"]) == 0
    assert "one chunk, a whole video" in capsys.readouterr().out
    assert plan.main([*CLUSTER, "--preset", "tiny-hunyuan-video", "--chunks", "2"]) == 2
    assert "--chunks" in capsys.readouterr().err


def test_sections_are_as_many_as_the_preset_says_and_the_first_decodes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    inverted, forward = (planned(capsys, "--preset", f"tiny-framepack{kind}") for kind in ("", "-f1"))
    assert inverted["load"]["chunks"] == load_preset("tiny-framepack").video.chunks > 1
    decodes = [values["stage_seconds"]["decode first chunk"]["value"] for values in (inverted, forward)]
    assert decodes[0] == 0 < decodes[1] < forward["stage_seconds"]["decode"]["value"]
    assert not [line for line in inverted["why"] if "TeaCache" in line]
    cached = planned(capsys, "--preset", "tiny-framepack", "--chunks", "1", "--set", "sampling.tea_cache=0.15")
    assert [line for line in cached["why"] if "TeaCache" in line]
    assert "decode first chunk" not in cached["stage_seconds"]
    assert cached["stage_seconds"]["decode"]["value"] > 0


def test_sections_wait_for_nobody_and_an_inverted_video_s_first_picture_is_its_second_section_s() -> None:
    load = Load(1, 3, live=True, played=False, layout="inverted")
    outcome = simulate(lanes_of(APART, Fixed()), load, loss=0.0)
    # 1.5 s shared text and encode, then denoises (5, 10, 10) back to back, each decode (2.25) beside the next.
    assert outcome.makespan == pytest.approx(1.5 + 5 + 10 + 10 + 2.25 + 0.125)
    assert outcome.firsts == [pytest.approx(1.5 + 5 + 10 + 2.25)]
    assert outcome.latencies == [pytest.approx(10 + 2.25)]
    nothing = simulate(lanes_of(APART, Fixed()), Load(1, 1, live=True, start="none"), loss=0.0)
    assert nothing.firsts == [pytest.approx(1 + 5 + 2.25)], "there is nothing to encode"


def test_the_memory_table_has_no_next_chunk_of_a_whole_video() -> None:
    ranks = table([load_preset("tiny-hunyuan-video"), load_preset("tiny-framepack")]).splitlines()
    whole, sections = (line.split(" | ") for line in ranks[2:4])
    assert [cell.strip(" |") for cell in whole[-4:]] == ["–"] * 4
    assert sections[-4:] != whole[-4:]
    assert "–" not in " ".join(sections)


@pytest.mark.parametrize("name", ["tiny-hunyuan-video", "tiny-framepack"])
def test_a_profile_times_every_stage_that_a_family_has(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "costs.json"
    small = ["--set", "sampling.steps=1", "--set", "video.height=32", "--set", "video.width=32"]
    assert bench.main(["profile", "--preset", name, "--out", str(path), "--runs", "1", *small]) == 0
    seconds = json.loads(path.read_text())["seconds"]
    sections = {"encode", "denoise_next"} if name == "tiny-framepack" else set()
    assert set(seconds) == {"text", "denoise_first", "decode", "encode_video"} | sections
    capsys.readouterr()
    values = planned(capsys, "--preset", name, "--costs", str(path), *small)
    told = values["stage_seconds"]
    assert told["decode"]["value"] == seconds["decode"]["median"]
    first = next(figure for stage, figure in told.items() if stage.startswith("denoise"))
    assert (first["value"], first["basis"]) == (seconds["denoise_first"]["median"], "measured")
    alone = next(each for each in values["layouts"] if each["name"].startswith("2×SP1"))["figures"]
    whole = name == "tiny-hunyuan-video"  # the first section of the other decodes what was not measured: nothing
    assert alone["chunks_per_hour"]["basis"] == ("measured" if whole else "assumed")
