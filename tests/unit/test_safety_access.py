"""Which places a run may touch: rules hold for rows, manifest, output and weights, and no URI means another place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.access import Access
from gamecraft_core.base.errors import BadInput, UsageError
from gamecraft_core.base.ids import digest
from gamecraft_core.base.inputs import file_size, local_copy, read_bytes
from gamecraft_core.base.store import open_store
from jobs.config import identity, resolve
from jobs.synthesize import main
from orchestrator.manifest.manifest import Manifest
from orchestrator.manifest.rows import RowErrors
from tests.fakes.malformed import row
from tests.fakes.malformed_files import picture
from tests.fakes.presets import preset_values, tiny_preset

MALFORMED = [
    "s3://",
    "s3:///key",
    "s3://buc ket/key",
    "s3://a:b@bucket/key",
    "s3://key@bucket/key",
    "s3://bucket/key?versionId=1",
    "s3://bucket/../other/key",
    "s3://bucket/a/../../b",
    "s3://bucket/./key",
    "s3://../key",
    "s3://bucket/key\n",
    "s3://bücket/key",
    "file:///a\0b",
    "/a\x1b[31m",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``open/`` may be read, ``closed/`` not; ``open/way-out.png`` is a link from one to the other."""
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(picture("PNG"))
    (tmp_path / "open" / "way-out.png").symlink_to("../closed/a.png")
    (tmp_path / "open" / "door").symlink_to("../closed")
    (tmp_path / "way-in").symlink_to("open")
    (tmp_path / "open-too").mkdir()
    return tmp_path


def rules(folder: Path, **others: Any) -> dict[str, Any]:
    return {"access": {"roots": [f"{folder}/way-in"], **others}}


@pytest.mark.parametrize("uri", MALFORMED)
def test_what_is_malformed_is_refused_whatever_the_rules(uri: str) -> None:
    with pytest.raises(BadInput) as caught:
        Access().check(uri, "image", BadInput)
    assert caught.value.field == "image"
    assert caught.value.remedy
    with pytest.raises(UsageError):
        open_store(uri)


@pytest.mark.parametrize(
    "uri", ["s3://bucket", "s3://My_bucket.v2/a/b c/é#1%20.png", "/a/../b", "a.png", "file:///a b"]
)
def test_what_is_well_formed_may_be_opened_by_default(uri: str) -> None:
    Access().check(uri)
    Access.of(resolve("tiny-gamecraft").store.model_dump()).check(uri)


def test_only_configured_schemes_and_buckets(folder: Path) -> None:
    access = Access(schemes=("s3",), buckets=("in", "out"))
    access.check("s3://in/a/b")
    access.check("s3://out")
    for uri, said in (("s3://other/a", "bucket 'other'"), ("/a", "scheme 'file'"), ("memory://in/a", "'memory'")):
        with pytest.raises(UsageError, match=said) as caught:
            access.check(uri, "out")
        assert caught.value.field == "out"
        assert "store.access" in caught.value.remedy
    with pytest.raises(UsageError, match="scheme 'S3'"):
        access.check("S3://in/a")


@pytest.mark.parametrize("path", ["open/a.png", "way-in/a.png", "open/./../open/a.png", "open/none.png", "open"])
def test_inside_the_roots(folder: Path, path: str) -> None:
    Access.of(rules(folder)).check(f"{folder}/{path}")
    Access.of(rules(folder)).check(f"file://{folder}/{path}")


@pytest.mark.parametrize(
    "path", ["closed/a.png", "open/../closed/a.png", "open/way-out.png", "open/door/a.png", "open-too", ".", "none.png"]
)
def test_outside_the_roots(folder: Path, path: str) -> None:
    with pytest.raises(UsageError, match="lies outside"):
        Access.of(rules(folder)).check(f"{folder}/{path}")


def test_every_door_heeds_the_rules(folder: Path) -> None:
    outside, options = f"{folder}/closed/a.png", rules(folder)
    for door in (read_bytes, file_size):
        with pytest.raises(BadInput, match="lies outside") as caught:
            door(outside, "image", **({"max_bytes": 9000} if door is read_bytes else {}), options=options)
        assert caught.value.field == "image"
    for closed in (lambda: local_copy(outside, options, field="weights.vae"), lambda: open_store(outside, options)):
        with pytest.raises(UsageError, match="lies outside"):
            closed()
    assert read_bytes(f"{folder}/open/a.png", "image", max_bytes=9000, options=options)
    for uri in ("s3://other/in/a.png", "s3://other/in"):
        with pytest.raises(UsageError, match="bucket 'other'"):
            open_store(uri, rules(folder, buckets=["mine"]))


def test_a_denied_row_fails_alone(folder: Path) -> None:
    path = folder / "open" / "manifest.jsonl"
    images = ["a.png", "../closed/a.png", "way-out.png", f"{folder}/closed/a.png", "s3://other/a.png", "/dev/zero"]
    lines = [row(image=image, prompt=f"{number}") for number, image in enumerate(images)]
    lines.append(row(image="a.png", actions="poses:../closed/a.png"))
    path.write_bytes(b"\n".join(lines))
    preset = tiny_preset()
    found = list(Manifest(str(path), {preset.name: preset}, preset.name, rules(folder, buckets=["mine"])).rows())
    assert [isinstance(each, RowErrors) for each in found] == [False] + [True] * 6
    errors = [each.errors[0] for each in found if isinstance(each, RowErrors)]
    assert [error.field for error in errors] == ["image"] * 5 + ["actions[0].poses"]
    assert all("may be used" in error.reason and "store.access" in error.remedy for error in errors)


def test_manifest_and_output_outside_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for name in ("open", "closed"):
        Path(name, "manifest.jsonl").write_bytes(row(image="a.png"))
    for manifest, out, field in (
        ("closed/manifest.jsonl", "open/out", "manifest"),
        ("open/manifest.jsonl", "closed/out", "out"),
        ("open/manifest.jsonl", "open/door/out", "out"),
    ):
        argv = [
            "--preset",
            "tiny-gamecraft",
            "--manifest",
            manifest,
            "--out",
            out,
            "--set",
            "store.access.roots=[open]",
        ]
        assert main(argv) == 2
        refused = capsys.readouterr().err
        assert f"refused: {field}: " in refused
        assert "lies outside" in refused
    assert not list(folder.rglob("out"))


def test_weights_outside_are_refused_and_our_own_are_not(folder: Path) -> None:
    import yaml

    weights = {"kind": "files", "dit": f"{folder}/open/dit", "vae": f"{folder}/closed/vae"}
    text = {"llm": f"{folder}/open/llm", "clip": f"{folder}/open/clip"}
    (folder / "p.yaml").write_text(yaml.safe_dump(preset_values("p", weights=weights, text=text)))
    roots = f"store.access.roots=[{folder}/open]"
    with pytest.raises(UsageError, match="lies outside") as caught:
        resolve(f"{folder}/p.yaml", sets=[roots])
    assert caught.value.field == "weights.vae"
    resolve(f"{folder}/p.yaml", sets=[roots, f"weights.vae={folder}/open/vae"])
    resolve("tiny-gamecraft", sets=[roots])


def test_rules_are_checked_and_no_part_of_what_an_output_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    sets = ["store.access.roots=[open, ~/x]", "store.access.buckets=[in]", "store.access.schemes=[file]"]
    config = resolve("tiny-gamecraft", sets=sets)
    assert config.store.access.roots == (f"{folder}/open", str(Path.home() / "x"))
    assert digest(identity(config)) == digest(identity(resolve("tiny-gamecraft")))
    for wrong in ("store.access.schemes=[ftp]", "store.access.schemes=[]", "store.access.bucket=[in]"):
        with pytest.raises(UsageError):
            resolve("tiny-gamecraft", sets=[wrong])


@given(st.text(st.characters() | st.sampled_from("/.\\@?:%"), max_size=20))
def test_what_passes_stays_in_its_bucket(tail: str) -> None:
    uri = f"s3://bucket{tail}"
    try:
        Access(schemes=("s3",), buckets=("bucket",)).check(uri)
    except UsageError as error:
        assert error.remedy  # noqa: PT017
        return
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    assert bucket == "bucket"
    assert not {".", ".."} & set(key.split("/"))
