"""One row: what is accepted, every single mistake by field, and that nothing at all can break the reader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from gamecraft_core.base import inputs
from gamecraft_core.base.errors import BadInput, StoreUnavailable, UsageError
from gamecraft_core.base.preset import SamplingConfig
from gamecraft_core.base.spec import PoseControl, SessionSpec
from gamecraft_core.media import bounds
from orchestrator.manifest import rows, sources
from orchestrator.manifest.rows import COLUMNS, RowErrors, RowReader, check_preset
from orchestrator.manifest.sources import Sources
from tests.fakes.presets import tiny_preset

POSE_ROW = "0 0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"
GOOD: dict[str, Any] = {"image": "a.png", "prompt": "a quiet harbour", "actions": "w"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows")
    Image.new("RGB", (32, 24), (200, 90, 20)).save(path / "a.png")
    Image.new("RGB", (640, 24)).save(path / "thin.png")
    (path / "torn.png").write_bytes((path / "a.png").read_bytes()[:20])
    (path / "text.png").write_text("not an image")
    (path / "empty.png").touch()
    (path / "clip.mp4").write_bytes(b"some bytes")
    (path / "arc.txt").write_text("\n".join([POSE_ROW] * 40))
    (path / "short.txt").write_text("\n".join([POSE_ROW] * 20))
    (path / "nan.txt").write_text("\n".join([POSE_ROW.replace("0.9", "nan")] * 33))
    (path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    return path


@pytest.fixture(scope="module")
def reader(folder: Path) -> RowReader:
    eight = tiny_preset("eight", vae={"time_compression_ratio": 8})
    brisk = tiny_preset("brisk", control={"default_speed": 0.7}, video={"chunk_frames": 17})
    presets = {preset.name: preset for preset in (tiny_preset(), eight, brisk)}
    return RowReader(presets, "tiny", Sources(folder.as_uri()))


def accepted(reader: RowReader, **changes: Any) -> SessionSpec:
    result = reader.read(GOOD | changes, 1)
    assert isinstance(result, SessionSpec), result
    return result


def test_everything_left_out_comes_from_the_preset(reader: RowReader, folder: Path) -> None:
    spec = accepted(reader)
    assert (spec.seed, spec.steps, spec.guidance, spec.shift) == (5, 4, 1.0, 5.0)
    assert (spec.height, spec.width, spec.chunk_frames, spec.fps) == (64, 96, 33, 25)
    assert (spec.tenant, spec.priority, spec.negative_prompt, spec.preset) == ("default", "batch", "blurry", "tiny")
    assert (spec.start.kind, spec.start.uri) == ("image", (folder / "a.png").as_uri())


def test_a_row_may_override_it_all(reader: RowReader, folder: Path) -> None:
    spec = accepted(
        reader,
        session_id=17,
        image=None,
        video=str(folder / "clip.mp4"),
        preset="brisk",
        negative_prompt="",
        actions=[{"poses": "arc.txt"}, {"action": "d"}],
        tenant="studio",
        priority="interactive",
        seed="12",
        steps=8.0,
        guidance="2.5",
        shift=7,
        height=112,
        width=128,
        chunk_frames=17,
    )
    assert (spec.session_id, spec.preset, spec.negative_prompt, spec.tenant) == ("17", "brisk", "", "studio")
    assert (spec.seed, spec.steps, spec.guidance, spec.shift, spec.height, spec.width) == (12, 8, 2.5, 7.0, 112, 128)
    assert spec.start.uri == (folder / "clip.mp4").as_uri()
    poses, move = spec.controls
    assert isinstance(poses, PoseControl)
    assert len(poses.rows) == 18
    assert move.describe() == {"action": "d", "speed": 0.7}
    assert spec.num_frames == 34


def test_the_derived_id_follows_content_alone(reader: RowReader, folder: Path) -> None:
    same = accepted(reader, tenant="other", priority="interactive", actions=[{"action": "w", "speed": 0.2}])
    assert accepted(reader).session_id == same.session_id
    elsewhere = Sources(str(folder))
    assert accepted(RowReader({"tiny": tiny_preset()}, "tiny", elsewhere)).session_id == same.session_id
    for change in ({"seed": 6}, {"prompt": "dusk"}, {"actions": "w*2"}, {"width": 112}, {"chunk_frames": 17}):
        assert accepted(reader, **change).session_id != same.session_id


MISTAKES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"image": None}, "image", "neither is given", "exactly one"),
    ({"video": "clip.mp4"}, "image", "both are given", "exactly one"),
    ({"image": "none.png"}, "image", "does not exist", "check the path"),
    ({"image": ""}, "image", "not a path", "name one file"),
    ({"image": "a\0.png"}, "image", "not a path", "name one file"),
    ({"image": "."}, "image", "not a file", "name one file"),
    ({"image": "a.png/b"}, "image", "Not a directory", "check the path"),
    ({"image": "x" * 300}, "image", "too long", "check the path"),
    ({"image": "x" * 5000}, "image", "too many", "at most"),
    ({"image": 3}, "image", "not text", "string"),
    ({"image": "\ud800.png"}, "image", "not valid UTF-8", "UTF-8"),
    ({"image": "http://host/a.png"}, "image", "scheme 'http'", "file, s3, memory"),
    ({"image": "s3://[oops"}, "image", "no legal bucket", "s3://BUCKET/KEY"),
    ({"image": "s3://bucket"}, "image", "names no file", "KEY"),
    ({"image": "memory://b/../a.png"}, "image", "'..' in its path", "the key itself"),
    ({"image": "memory://b/none.png"}, "image", "does not exist", "check the path"),
    ({"image": "torn.png"}, "image", "not an image|is damaged", "image file"),
    ({"image": "text.png"}, "image", "not an image", "image file"),
    ({"image": "empty.png"}, "image", "is empty", "complete file"),
    ({"image": "thin.png"}, "image", "too narrow", "1:16"),
    ({"image": None, "video": "none.mp4"}, "video", "No such file|does not exist", "check the path"),
    ({"image": None, "video": "memory://b/none.mp4"}, "video", "does not exist", "check the path"),
    ({"image": None, "video": "empty.png"}, "video", "is empty", "complete file"),
    ({"prompt": None}, "prompt", "no prompt", "describe"),
    ({"prompt": "  "}, "prompt", "no prompt", "describe"),
    ({"prompt": 5}, "prompt", "not text", "string"),
    ({"prompt": "x" * 10_001}, "prompt", "too many", "at most 10000"),
    ({"prompt": "\udcff"}, "prompt", "not valid UTF-8", "UTF-8"),
    ({"negative_prompt": ["a"]}, "negative_prompt", "not text", "string"),
    ({"actions": None}, "actions", "no controls", "give"),
    ({"actions": "w jump"}, "actions[1].action", "unknown action", "w, a, s, d"),
    ({"actions": "poses:none.txt"}, "actions[0].poses", "No such file|does not exist", "check the path"),
    ({"actions": "poses:short.txt"}, "actions[0].poses", "short.txt: the pose file has 20 rows", "33"),
    ({"actions": "poses:nan.txt"}, "actions[0].poses", "nan.txt: line 1", "keep every value"),
    ({"actions": "poses:binary.txt"}, "actions[0].poses", "not text", "19 numbers"),
    ({"actions": "poses:."}, "actions[0].poses", "not a file", "name one file"),
    ({"preset": "tiney"}, "preset", "unknown preset 'tiney'", "'tiny'"),
    ({"preset": "eight"}, "preset", "time compression 888", "884 VAE"),
    ({"preset": 1}, "preset", "unknown preset 1", "tiny, eight, brisk"),
    ({"session_id": "a/b"}, "session_id", "not a legal id", "letters"),
    ({"session_id": ""}, "session_id", "not a legal id", "letters"),
    ({"session_id": "x" * 129}, "session_id", "not a legal id", "128"),
    ({"session_id": True}, "session_id", "not text", "string"),
    ({"tenant": "../x"}, "tenant", "not a legal id", "letters"),
    ({"priority": "urgent"}, "priority", "unknown priority 'urgent'", "interactive, batch"),
    ({"seed": -1}, "seed", "out of range", "from 0"),
    ({"seed": 2**63}, "seed", "out of range", "from 0"),
    ({"seed": 1.5}, "seed", "not a whole number", "from 0"),
    ({"seed": True}, "seed", "not a whole number", "from 0"),
    ({"seed": "many"}, "seed", "not a whole number", "from 0"),
    ({"steps": 0}, "steps", "out of range", "1 to 1000"),
    ({"steps": 1001}, "steps", "out of range", "1 to 1000"),
    ({"guidance": 0.5}, "guidance", "out of range", "1 to 30"),
    ({"guidance": math.nan}, "guidance", "not a finite number", "1 to 30"),
    ({"guidance": "inf"}, "guidance", "not a finite number", "1 to 30"),
    ({"shift": 0}, "shift", "out of range", "above 0"),
    ({"shift": [5]}, "shift", "not a finite number", "above 0"),
    ({"height": 100}, "height", "not a multiple of 16", "96 or 112"),
    ({"width": 8}, "width", "out of range", "16 to"),
    ({"height": "tall"}, "height", "not a whole number", "16 to"),
    ({"height": 256, "width": 256}, "height", "more than 40000 pixels", "smaller"),
    ({"chunk_frames": 34}, "chunk_frames", "34 frames", "33 or 17"),
    ({"chunk_frames": 0}, "chunk_frames", "0 frames", "33 or 17"),
    ({"chunk_frames": "all"}, "chunk_frames", "'all' frames", "33 or 17"),
    ({"promt": "x"}, "promt", "unknown column 'promt'", "'prompt'"),
    ({"zzz": "x"}, "zzz", "unknown column 'zzz'", "session_id, image"),
]


@pytest.mark.parametrize(("changes", "field", "reason", "remedy"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_error_with_field_reason_and_remedy(
    reader: RowReader, changes: dict[str, Any], field: str, reason: str, remedy: str
) -> None:
    result = reader.read(GOOD | changes, 9)
    assert isinstance(result, RowErrors)
    (error,) = result.errors
    assert (error.row, error.field, error.stage) == (9, field, "validate")
    assert any(part in error.reason for part in reason.split("|"))
    assert remedy in error.remedy


def test_a_gigantic_image_is_refused_by_its_header(reader: RowReader, folder: Path) -> None:
    import struct
    import zlib

    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (folder / "giant.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + b"\0\0\0\0IDAT" + b"\0" * 8)
    result = reader.read(GOOD | {"image": "giant.png"}, 1)
    assert isinstance(result, RowErrors)
    assert "pixels" in result.errors[0].reason or "too large" in result.errors[0].reason


def test_all_mistakes_of_a_row_are_reported_at_once(reader: RowReader) -> None:
    result = reader.read({"video": "none.mp4", "seed": -1, "steps": "x", "colour": 1, "session_id": "mine"}, 3)
    assert isinstance(result, RowErrors)
    assert result.session_id == "mine"
    assert {error.field for error in result.errors} == {"video", "seed", "steps", "colour", "prompt", "actions"}


def test_one_file_is_looked_at_once_good_or_bad(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    read = inputs.read_bytes

    def counted(uri: str, field: str, **options: Any) -> bytes:
        looks.append(uri.rpartition("/")[2])
        return read(uri, field, **options)

    monkeypatch.setattr(sources, "read_bytes", counted)
    reader = RowReader({"tiny": tiny_preset()}, "tiny", Sources(folder.as_uri()))
    errors = set()
    for seed in range(5):
        accepted(reader, seed=seed)
        refused = reader.read(GOOD | {"image": "text.png", "seed": seed}, 1)
        assert isinstance(refused, RowErrors)
        errors.add((refused.errors[0].field, refused.errors[0].reason))
    assert looks == ["a.png", "text.png"]
    assert len(errors) == 1


def test_a_file_that_is_an_image_is_not_yet_a_clip(folder: Path) -> None:
    looked = Sources(folder.as_uri())
    looked.check_image(looked.locate("a.png", "image"), "image")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "MAX_CLIP_BYTES", 10)
        with pytest.raises(BadInput, match="larger than") as caught:
            looked.check_video(looked.locate("a.png", "video"), "video")
    assert caught.value.field == "video"


def test_an_unreachable_store_blames_no_row(reader: RowReader, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> bytes:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(sources, "read_bytes", away)
    with pytest.raises(StoreUnavailable):
        reader.read(GOOD | {"image": "memory://b/away.png"}, 1)


def test_named_values_come_through_the_same_door(reader: RowReader) -> None:
    assert reader.spec_from_fields(GOOD | {"seed": None}).seed == 5
    with pytest.raises(UsageError, match="not a multiple of 16") as caught:
        reader.spec_from_fields(GOOD | {"height": 100})
    assert caught.value.field == "height"
    with pytest.raises(UsageError, match=r"prompt: there is no prompt.*; seed: "):
        reader.spec_from_fields({"image": "a.png", "actions": "w", "seed": -1})


def test_limits_of_a_row_are_those_of_a_preset() -> None:
    base = {"steps": 4, "guidance": 1.0, "shift": 5.0}
    for name, last in (("steps", rows.MAX_STEPS), ("guidance", rows.MAX_GUIDANCE), ("shift", rows.MAX_SHIFT)):
        SamplingConfig.model_validate(base | {name: last})
        with pytest.raises(ValidationError):
            SamplingConfig.model_validate(base | {name: last + 1})
    SamplingConfig.model_validate(base | {"seed": rows.MAX_SEED})
    with pytest.raises(ValidationError):
        SamplingConfig.model_validate(base | {"seed": rows.MAX_SEED + 1})


@pytest.mark.parametrize(
    ("section", "changes", "field"),
    [
        ("vae", {"time_compression_ratio": 1}, "vae.time_compression_ratio"),
        ("video", {"height": 72}, "video.height"),
        ("video", {"max_pixels": 100}, "video.height"),
        ("video", {"chunk_frames": 21}, "video.chunk_frames"),
        ("control", {"default_speed": 2.5}, "control.default_speed"),
        ("control", {"speed_min": -1.0}, "control.default_speed"),
        ("control", {"default_rotation_speed": 2.5}, "control.default_rotation_speed"),
    ],
)
def test_a_preset_no_session_could_start_with_is_refused(section: str, changes: dict[str, Any], field: str) -> None:
    check_preset(tiny_preset())
    with pytest.raises(BadInput) as caught:
        check_preset(tiny_preset("tiny", **{section: changes}))
    assert caught.value.field == field
    assert caught.value.remedy


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=12)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
words = st.sampled_from(
    ["w", "w:0.2*3", "poses:arc.txt", "d:nan", "left_rot:1e9", "*", "s3://[", "a.png", "memory://x/y"]
)
cells = st.dictionaries(st.sampled_from(COLUMNS) | st.text(max_size=8), anything | words, max_size=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=cells, base=st.booleans())
def test_no_row_can_break_the_reader(reader: RowReader, cells: dict[str, Any], base: bool) -> None:
    result = reader.read((GOOD if base else {}) | cells, 1)
    if isinstance(result, SessionSpec):
        assert result.controls
        assert result.session_id
        assert hash(result) is not None
    else:
        assert result.errors
        for error in result.errors:
            assert error.field
            assert error.reason
            assert error.remedy
            str(error).encode()
