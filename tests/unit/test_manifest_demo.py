"""The demo's manifest: complete, as varied as it claims, small, and drawn by its own script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import ActionControl, PoseControl, SessionSpec
from gamecraft_core.media.clip import read_last_frames
from jobs.config import load_preset, preset_names
from jobs.demo import make_inputs, make_micro
from orchestrator.manifest.manifest import Manifest
from tests.fakes.presets import tiny_preset

MANIFEST = Path(make_inputs.__file__).with_name("manifest.jsonl")
PRESETS = [
    tiny_preset("fake", control={"rotation_speed_max": 3.0}),
    *(preset for preset in map(load_preset, preset_names()) if preset.family == "gamecraft"),
]


def sessions(preset: Preset) -> list[SessionSpec]:
    return [
        row
        for row in Manifest(str(MANIFEST), {preset.name: preset}, preset.name).rows()
        if isinstance(row, SessionSpec)
    ]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_every_row_is_good_under_every_preset_with_a_camera(preset: Preset) -> None:
    survey = Manifest(str(MANIFEST), {preset.name: preset}, preset.name).survey()
    assert survey.errors == ()
    assert (survey.good, survey.chunks, survey.frames) == (8, 24, 7 * 99 + 51)


def test_the_micro_worlds_rows_are_good_and_its_pictures_those_the_script_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_micro.HERE
    preset = load_preset("micro-gamecraft")
    survey = Manifest(str(stored / "manifest.jsonl"), {preset.name: preset}, preset.name).survey()
    assert (survey.errors, survey.good, survey.chunks) == ((), 12, 36)
    monkeypatch.setattr(make_micro, "HERE", tmp_path)
    make_micro.main()
    assert sorted(path.name for path in stored.iterdir()) == sorted(path.name for path in tmp_path.iterdir())
    assert (stored / "manifest.jsonl").read_text() == (tmp_path / "manifest.jsonl").read_text()
    for path in stored.glob("*.png"):
        difference = np.asarray(Image.open(path)).astype(int) - np.asarray(Image.open(tmp_path / path.name))
        assert abs(difference).max() <= 2, path.name


def test_it_shows_what_the_product_does() -> None:
    specs = sessions(PRESETS[0])
    controls = [control for spec in specs for control in spec.controls]
    assert {spec.start.kind for spec in specs} == {"image", "video"}
    assert len({spec.start.uri for spec in specs}) >= 4
    assert len({spec.seed for spec in specs}) == len(specs)
    assert any(isinstance(control, PoseControl) and len(control.rows) == 34 for control in controls)
    assert len({control.action for control in controls if isinstance(control, ActionControl)}) >= 7
    assert any(spec.guidance > 1 and spec.negative_prompt != PRESETS[0].sampling.negative_prompt for spec in specs)
    assert {spec.chunk_frames for spec in specs} == {17, 33}


def test_the_inputs_are_small_and_are_those_the_script_draws(tmp_path: Path) -> None:
    make_inputs.main(tmp_path)
    stored = sorted(make_inputs.INPUTS.iterdir())
    assert [path.name for path in stored] == sorted(path.name for path in tmp_path.iterdir())
    for path in stored:
        assert path.stat().st_size < 40_000, path.name
        if path.suffix == ".png":
            difference = np.asarray(Image.open(path)).astype(int) - np.asarray(Image.open(tmp_path / path.name))
            assert abs(difference).max() <= 1, path.name
    assert np.allclose(np.loadtxt(stored[0]), np.loadtxt(tmp_path / stored[0].name), atol=1e-8)


def test_the_clip_is_the_drawn_flight() -> None:
    frames = read_last_frames((make_inputs.INPUTS / "balloons.mp4").read_bytes(), 33, max_pixels=100_000)
    drawn = make_inputs.balloons((make_inputs.CLIP_FRAMES - 1) / make_inputs.FPS)
    assert np.abs(frames[-1].astype(int) - drawn).mean() < 6
