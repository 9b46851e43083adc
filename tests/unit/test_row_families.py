"""Rows of families without a camera: what they start from, how long they are, and several videos of one row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import NoControl, SessionSpec
from gamecraft_core.base.store import file_uri
from jobs.config import load_preset
from orchestrator.manifest.manifest import Manifest
from orchestrator.manifest.rows import RowErrors, RowReader, check_preset
from orchestrator.manifest.sources import Sources

PRESETS = {
    name: load_preset(name)
    for name in ("tiny-gamecraft", "tiny-hunyuan-video", "tiny-hunyuan-video-i2v", "tiny-framepack")
}


@pytest.fixture
def reader(tmp_path: Path) -> RowReader:
    Image.new("RGB", (96, 64), "teal").save(tmp_path / "a.png")
    return RowReader(PRESETS, "tiny-gamecraft", Sources(file_uri(str(tmp_path))))


def spec(reader: RowReader, **cells: Any) -> SessionSpec:
    result = reader.read({"prompt": "a harbour", **cells}, 1)
    assert isinstance(result, SessionSpec), result
    return result


def problems(reader: RowReader, **cells: Any) -> dict[str, str]:
    result = reader.read({"prompt": "a harbour", **cells}, 1)
    assert isinstance(result, RowErrors)
    return {error.field: f"{error.reason}; {error.remedy}" for error in result.errors}


def test_a_whole_video_is_one_chunk_from_nothing(reader: RowReader) -> None:
    whole = spec(reader, preset="tiny-hunyuan-video", frames=17)
    assert (whole.start.kind, whole.start.uri, whole.controls) == ("none", "", (NoControl(),))
    assert (whole.num_frames, whole.fps, whole.layout, whole.embedded_guidance) == (17, 24, "tiled", 6.0)
    assert spec(reader, preset="tiny-hunyuan-video").num_frames == 33


@pytest.mark.parametrize(
    ("seconds", "sections"), [(None, 3), (0.1, 1), (3.6, 3), (5.4, 4), (6.6, 6), (60, 50)], ids=str
)
def test_seconds_become_sections_as_published(reader: RowReader, seconds: float | None, sections: int) -> None:
    packed = spec(reader, preset="tiny-framepack", image="a.png", seconds=seconds)
    assert (packed.num_chunks, packed.num_frames) == (sections, 36 * sections + 1)
    assert (packed.layout, packed.keeps_start, packed.embedded_guidance) == ("inverted", True, 10.0)


@pytest.mark.parametrize(
    ("cells", "field", "says"),
    [
        ({"preset": "tiny-hunyuan-video", "frames": 18}, "frames", "4n+1"),
        ({"preset": "tiny-hunyuan-video", "frames": 133}, "frames", "out of range"),
        ({"preset": "tiny-hunyuan-video", "image": "a.png"}, "image", "from its prompt alone, and an image is given"),
        ({"preset": "tiny-hunyuan-video", "actions": "w"}, "actions", "have none; leave it out"),
        ({"preset": "tiny-hunyuan-video-i2v", "image": "a.png", "frames": 1}, "frames", "from 5 to 129"),
        ({"preset": "tiny-hunyuan-video", "videos": 0}, "videos", "out of range"),
        ({"preset": "tiny-framepack", "seconds": 2}, "image", "starts from an image, and none is given"),
        ({"preset": "tiny-framepack", "video": "a.mp4"}, "video", "starts from an image, and a video is given"),
        ({"preset": "tiny-framepack", "image": "a.png", "seconds": 0}, "seconds", "out of range"),
        ({"preset": "tiny-framepack", "image": "a.png", "chunk_frames": 33}, "chunk_frames", "sessions take seconds"),
        ({"image": "a.png", "actions": "w", "embedded_guidance": 3}, "embedded_guidance", "not told its guidance"),
        ({"image": "a.png", "actions": "w", "frames": 33}, "frames", "actions and chunk_frames"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_a_family_does_not_take_is_refused(
    reader: RowReader, cells: dict[str, Any], field: str, says: str
) -> None:
    found = problems(reader, **cells)
    assert says in found[field]


def test_several_videos_of_a_row_have_their_own_seeds_ids_and_numbers(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "preset": "tiny-hunyuan-video", "seed": 7, "videos": 3},
        {"prompt": "b", "preset": "tiny-hunyuan-video", "session_id": "named", "videos": 2},
        {"prompt": "c", "preset": "tiny-hunyuan-video", "videos": "many"},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    manifest = Manifest(str(path), PRESETS, "tiny-gamecraft")
    *made, wrong = manifest.rows()
    assert [(row.row, row.seed, row.prompt) for row in made if isinstance(row, SessionSpec)] == [
        (1, 7, "a"), (2, 8, "a"), (3, 9, "a"), (4, 0, "b"), (5, 1, "b")
    ]  # fmt: skip
    names = [row.session_id for row in made]
    assert len(set(names)) == 5
    assert names[3:] == ["named", "named-2"]
    assert isinstance(wrong, RowErrors)
    assert (wrong.row, wrong.errors[0].field) == (6, "videos")
    again = Manifest(str(path), PRESETS, "tiny-gamecraft").rows(set(names))
    assert [row.session_id for row in again][:5] == names


def with_buckets() -> dict[str, Preset]:
    """A preset of sizes around 64 x 64."""
    preset = PRESETS["tiny-framepack"]
    return {preset.name: preset.model_copy(update={"video": preset.video.model_copy(update={"bucket": 64})})}


def bucketed(tmp_path: Path) -> Manifest:
    """Two rows with a wide image, of which the second says its size."""
    rows = [{"prompt": "a", "image": "wide.png"}, {"prompt": "b", "image": "wide.png", "height": 64}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Image.new("RGB", (220, 100), "teal").save(tmp_path / "wide.png")
    return Manifest(str(tmp_path / "m.jsonl"), with_buckets(), "tiny-framepack")


def test_a_row_without_a_size_takes_the_bucket_nearest_to_its_image(tmp_path: Path) -> None:
    made = list(bucketed(tmp_path).rows())
    assert [(row.height, row.width) for row in made if isinstance(row, SessionSpec)] == [(48, 96), (64, 96)]


def test_settled_rows_are_known_by_their_ids_when_their_images_are_gone(tmp_path: Path) -> None:
    names = [row.session_id for row in bucketed(tmp_path).rows()]
    manifest = bucketed(tmp_path)
    (tmp_path / "wide.png").unlink()
    again = list(manifest.rows(set(names)))
    assert all(isinstance(row, SessionSpec) for row in again)
    assert [row.session_id for row in again] == names


def test_an_image_that_vanishes_after_its_check_is_an_error_of_its_row(tmp_path: Path) -> None:
    class Vanishing(Sources):
        def check_image(self, uri: str, field: str) -> None:
            super().check_image(uri, field)
            self._size_once.cache_clear()
            (tmp_path / "wide.png").unlink(missing_ok=True)

    bucketed(tmp_path)
    reader = RowReader(with_buckets(), "tiny-framepack", Vanishing(file_uri(str(tmp_path))))
    assert "does not exist" in problems(reader, image="wide.png")["image"]


@pytest.mark.parametrize(
    ("name", "section", "key", "value"),
    [
        ("tiny-hunyuan-video", "video", "chunk_frames", 34),
        ("tiny-hunyuan-video", "video", "layout", "inverted"),
        ("tiny-hunyuan-video", "sampling", "shift_rule", "tokens"),
        ("tiny-framepack", "video", "chunk_frames", 37),
        ("tiny-framepack", "video", "layout", "tiled"),
        ("tiny-gamecraft", "video", "layout", "forward"),
    ],
)
def test_a_preset_whose_own_length_cannot_be_is_refused(name: str, section: str, key: str, value: Any) -> None:
    preset: Preset = PRESETS[name]
    wrong = preset.model_copy(update={section: getattr(preset, section).model_copy(update={key: value})})
    check_preset(preset)
    with pytest.raises(BadInput) as caught:
        check_preset(wrong)
    assert caught.value.field == f"{section}.{key}"
    assert caught.value.remedy


def test_a_family_that_nobody_knows_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown family 'nobody': use one of gamecraft"):
        Preset.model_validate({**PRESETS["tiny-gamecraft"].model_dump(), "family": "nobody"})
    with pytest.raises(ValueError, match="cannot be imported"):
        Preset.model_validate({**PRESETS["tiny-gamecraft"].model_dump(), "family": "no.such:THING"})
