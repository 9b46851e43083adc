"""python -m jobs.plan and jobs.bench: tables, files, mistakes, and the numbers they are calibrated by."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gamecraft_core.base.errors import UsageError
from gamecraft_core.costs.dit import Sequence, forward_work
from gamecraft_core.costs.hardware import compute_seconds, sp_loss_seconds
from gamecraft_core.costs.stages import StageCosts, profile_of
from jobs import bench, plan
from jobs.cards import load_hardware, parse_cluster, read_profile
from jobs.config import load_fleet, load_preset
from jobs.plan_fleet import fleet_of
from orchestrator.plan.layouts import layouts

HARDWARE = load_hardware()
#: HunyuanVideo at 720p: 129 frames are 33 latent frames of 45 x 80 tokens, all predicted; 50 steps of one pass.
PUBLISHED = Sequence(33 * 45 * 80, 33 * 45 * 80, 256)
QUICK = ["--preset", "tiny-gamecraft", "--cluster", "2xcpu", "--sessions", "4", "--chunks", "2"]


def published_seconds(card: str, degree: int = 1) -> float:
    preset = load_preset("gamecraft")
    work = forward_work(preset.dit, PUBLISHED, degree) * 50
    whole = forward_work(preset.dit, PUBLISHED).flops * 50
    seconds = compute_seconds(work, HARDWARE.cards[card], HARDWARE.common, "bfloat16")
    return seconds + sp_loss_seconds(whole, degree, HARDWARE.common)


@pytest.mark.parametrize(("card", "seconds"), [("H100-80", 1904), ("H20", 6639), ("A100-80", 47 * 60)])
def test_stated_efficiencies_give_published_times(card: str, seconds: float) -> None:
    assert published_seconds(card) == pytest.approx(seconds, rel=0.13)


@pytest.mark.parametrize(
    ("card", "degree", "efficiency"), [("H100-80", 8, 0.70), ("H100-80", 4, 0.93), ("H20", 8, 0.88)]
)
def test_groups_are_as_efficient_as_published(card: str, degree: int, efficiency: float) -> None:
    alone = published_seconds(card)
    assert alone / degree / published_seconds(card, degree) == pytest.approx(efficiency, abs=0.05)


def costs(card: str = "A100-80", **measured: float) -> StageCosts:
    preset = load_preset("gamecraft-distill")
    return StageCosts(preset, card, HARDWARE.cards[card], HARDWARE.cards["cpu"], HARDWARE.common, 0, measured, "here")


def test_costs_fall_with_the_degree_and_with_the_card() -> None:
    of_degree = [costs().denoise(degree).seconds.value for degree in (1, 2, 4, 8)]
    assert of_degree == sorted(of_degree, reverse=True)
    assert of_degree[0] / of_degree[-1] < 8, "communication is not free"
    assert costs("H100-80").denoise().seconds.value < of_degree[0]
    assert costs().denoise(continuing=False).seconds.value < of_degree[0] / 2
    assert costs().decode(2).value == pytest.approx(costs().decode().value / 2)
    assert costs().text(offloaded=True).value > costs().text().value + 13.4 * 2**30 / 32e9


def test_measured_costs_are_taken_and_scaled_ones_are_assumed() -> None:
    known = costs(denoise_next=100.0, decode=5.0)
    assert (known.denoise().seconds.value, known.denoise().seconds.basis) == (100.0, "measured")
    assert known.denoise(continuing=False).seconds.basis == "assumed"
    together = known.denoise(4)
    assert together.seconds.basis == "assumed"
    assert together.seconds.value - together.apart == pytest.approx(100 / 4, rel=0.02)
    assert known.decode().basis == "measured"
    assert known.decode(2).value == pytest.approx(2.5)


def test_losses_between_known_degrees_lie_between_theirs() -> None:
    losses = [sp_loss_seconds(1e15, degree, HARDWARE.common) for degree in (1, 2, 3, 4, 6, 8, 16)]
    assert losses == sorted(losses)
    assert losses[2] < losses[3] < losses[4] < losses[5] < losses[6]


def test_a_card_without_fp8_refuses_it() -> None:
    preset = load_preset("gamecraft-distill")
    preset = preset.model_copy(update={"runtime": preset.runtime.model_copy(update={"fp8": True})})
    made = StageCosts(preset, "A100-80", HARDWARE.cards["A100-80"], HARDWARE.cards["cpu"], HARDWARE.common)
    with pytest.raises(UsageError, match="no float8 units"):
        made.denoise()


@pytest.mark.parametrize("cards", [1, 2, 8])
@pytest.mark.parametrize("gpus", [True, False])
def test_every_layout_is_a_fleet_that_fits_its_cluster(cards: int, gpus: bool) -> None:
    for layout in layouts(cards, 24, guided=True):
        spec = fleet_of(layout, 2, gpus=gpus, text_cores=16, name="x", description="")
        assert sum(group.ranks for group in spec.denoise) == 2 * layout.ranks
        assert spec.decode.lanes == 2 * layout.decode_lanes
        assert (0 < spec.reserved()[1] <= 2 * cards) if gpus else spec.reserved()[1] == 0


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "costs.json"
    tiny = ["--set", "sampling.steps=1", "--set", "video.height=16", "--set", "video.width=32"]
    assert bench.main(["profile", "--preset", "tiny-gamecraft", "--out", str(path), "--runs", "1", *tiny]) == 0
    return path


def test_a_profile_times_every_stage_of_the_real_models(profiled: Path) -> None:
    values = json.loads(profiled.read_text())
    stages = {"text", "encode", "denoise_first", "denoise_next", "decode", "encode_video"}
    assert set(values["seconds"]) == stages
    assert all(each["median"] > 0 and each["n"] == 1 for each in values["seconds"].values())
    assert values["hardware"].startswith("cpu")


def test_a_measured_plan_says_so(profiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--set", "sampling.steps=1", "--set", "video.height=16", "--set", "video.width=32"]
    assert plan.main([*QUICK, *tiny, "--costs", str(profiled), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    told = {name: figure["basis"] for name, figure in values["stage_seconds"].items()}
    assert told["decode"] == told["denoise next chunk, SP1"] == "measured"
    assert told["denoise next chunk, SP2"] == told["write"] == "assumed"
    alone = next(each for each in values["layouts"] if each["name"].startswith("2×SP1"))
    assert alone["figures"]["chunks_per_hour"]["basis"] == "measured"
    for each in (*values["layouts"], values["reference"]):
        assert all(
            figure["basis"] in ("measured", "assumed") and figure["source"] for figure in each["figures"].values()
        )


def test_a_plan_is_a_table_a_fleet_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet, picture = tmp_path / "fleet.yaml", tmp_path / "plan.svg"
    assert plan.main([*QUICK, "--fleet-out", str(fleet), "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "Best for throughput: 2×SP1",
        "× the chunks an hour",
        "Best for latency, ",
        "reference: 1×SP2",
        "bound by denoise",
        "assumed",
    ):
        assert words in printed
    spec = load_fleet(str(fleet))
    assert [(group.groups, group.sp_degree) for group in spec.denoise] == [(2, 1)]
    assert spec.reserved()[1] == 0
    root = ElementTree.parse(picture).getroot()
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 1 + len(list(layouts(2, 4, guided=False))) // 2


def test_a_bound_that_nothing_keeps_is_told_and_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main([*QUICK, "--goal", "sessions=2@0.001"]) == 3
    assert "No layout keeps 2 sessions within 0.001 s" in capsys.readouterr().out


def test_mistakes_name_the_field_and_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junk = tmp_path / "junk.json"
    junk.write_text("{}")
    for wrong, words in (
        (["--cluster", "8xA100-8"], ("--cluster", "A100-80")),
        (["--cluster", "8xh100-80"], ("--cluster", "H100-80")),
        (["--cluster", "eight"], ("--cluster", "8xA100-80")),
        (["--cluster", "12xH200"], ("--cluster", "8xH200 or 16xH200")),
        (["--goal", "thruput"], ("--goal", "throughput")),
        (["--goal", "sessions=5000@1"], ("--goal", "at most 1024")),
        (["--preset", "gamecraft-distil"], ("preset", "gamecraft-distill")),
        (["--plot", "x.pdf"], ("--plot", "svg")),
        (["--costs", str(junk)], ("--costs", "jobs.bench profile")),
        (["--costs", str(tmp_path / "none.json")], ("--costs", "cannot read")),
    ):
        assert plan.main([*QUICK, *wrong]) == 2
        told = capsys.readouterr().err
        assert all(word in told for word in words), told


def test_a_profile_of_something_else_is_refused(tmp_path: Path) -> None:
    preset = load_preset("tiny-gamecraft")
    values: dict[str, Any] = {
        "hardware": "cpu x86_64",
        "shape": profile_of(preset),
        "seconds": {"text": {"median": 1.0}},
    }
    path = tmp_path / "costs.json"

    def refused(cluster: str) -> str:
        path.write_text(json.dumps(values))
        with pytest.raises(UsageError) as caught:
            read_profile(str(path), preset, parse_cluster(cluster, HARDWARE))
        return str(caught.value)

    assert "measured on cpu x86_64, not A100-80" in refused("8xA100-80")
    values["shape"] = values["shape"] | {"sampling": {"steps": 99, "guidance": 1.0}}
    assert "another sampling" in refused("1xcpu")
    values["seconds"] = {"dance": {"median": 1.0}}
    assert "dance" in refused("1xcpu")


def test_the_table_of_cards_cites_sources_that_exist() -> None:
    values = HARDWARE.model_dump()
    values["common"]["link_efficiency"]["source"] = "hearsay"
    with pytest.raises(ValueError, match="hearsay"):
        type(HARDWARE).model_validate(values)
    assert {"A100-80", "A100-40", "H100-80", "H200", "L40S", "RTX4090", "cpu"} <= HARDWARE.cards.keys()


def test_what_does_not_fit_a_card_is_left_out_or_refused_with_a_remedy() -> None:
    preset = load_preset("tiny-gamecraft")
    cluster = parse_cluster("2xcpu", HARDWARE)

    def with_memory(gib: float) -> tuple[int, int]:
        card = cluster.card.model_copy(update={"memory_gib": cluster.card.memory_gib.model_copy(update={"value": gib})})
        known, needs = plan._layouts(preset, replace(cluster, card=card))
        return len(known), sum(needs.most(layout) <= gib * 2**30 for layout in known)

    known, fitting = with_memory(4.0)
    assert known == fitting
    known, fitting = with_memory(1.3)
    assert 0 < fitting < known, "with decode on a core of its own three processes share one, not four"
    with pytest.raises(UsageError, match="no layout fits") as caught:
        with_memory(0.2)
    assert caught.value.field == "--cluster"


@pytest.mark.parametrize("job", ["plan", "bench"])
def test_the_command_line_imports_nothing_heavy(job: str) -> None:
    code = f"import sys, jobs.{job} as job; job.parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"torch", "ray", "numpy", "rich", "pydantic"} & set(done.stdout.split())
