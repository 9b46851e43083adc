"""Every kind of wrong row, and hundreds of malformed ones, beside good ones in one real run.

Each is named by row, field and remedy; nobody sees a traceback, and every good row commits.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes.malformed import Case, corpus
from tests.ray.runs import INPUTS, ROOT, SMALL, Finished
from tests.servers.cluster import ENV, RayCluster

pytestmark = pytest.mark.ray


@dataclass(frozen=True)
class Wrong:
    """A row that must be refused: what differs from a good one, and the one error that is due."""

    changes: Mapping[str, Any]
    field: str
    reason: str
    remedy: str
    stage: str = "validate"


POSE = "0 0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"
NO_IMAGE: dict[str, Any] = {"image": None}

WRONG = [
    # the start
    Wrong(NO_IMAGE, "image", "neither is given", "exactly one"),
    Wrong({"video": "clip.mp4"}, "image", "both are given", "exactly one"),
    Wrong({"image": "nowhere.png"}, "image", "does not exist", "check the path"),
    Wrong({"image": "."}, "image", "is not a file", "name one file"),
    Wrong({"image": ""}, "image", "is not a path", "name one file"),
    Wrong({"image": 7}, "image", "is not text", "string"),
    Wrong({"image": "empty.png"}, "image", "is empty", "complete file"),
    Wrong({"image": "text.png"}, "image", "not an image", "image file"),
    Wrong({"image": "large.png"}, "image", "outside the limit of 64000000 pixels", "scale it down"),
    Wrong({"image": "bomb.png"}, "image", "too large", "scale it down"),
    Wrong({"image": "thin.png"}, "image", "too narrow", "1:16"),
    Wrong({"image": "torn-header.png"}, "image", "image", "complete image file"),
    Wrong({"image": "torn.png"}, "image", "damaged", "complete image file", "encode"),
    Wrong({"image": "flipped.png"}, "image", "damaged", "complete image file", "encode"),
    Wrong({"image": "ftp://host/a.png"}, "image", "scheme 'ftp'", "use one of file, s3"),
    Wrong({"image": "s3://bucket"}, "image", "names no file", "SCHEME://BUCKET/KEY"),
    Wrong({"image": "good\u0000.png"}, "image", "is not a path", "name one file"),
    Wrong({"image": "\ud800.png"}, "image", "not valid UTF-8", "UTF-8"),
    Wrong({**NO_IMAGE, "video": "nowhere.mp4"}, "video", "No such file|does not exist", "check the path"),
    Wrong({**NO_IMAGE, "video": "empty.png"}, "video", "is empty", "complete file"),
    Wrong({**NO_IMAGE, "video": "text.png"}, "video", "cannot be decoded", "complete video file", "encode"),
    Wrong({**NO_IMAGE, "video": "short.mp4"}, "video", "has 5 frames", "at least 33 frames", "encode"),
    Wrong({**NO_IMAGE, "video": "silent.mp4"}, "video", "cannot be decoded|holds no video", "video file", "encode"),
    Wrong({**NO_IMAGE, "video": "playlist.m3u8"}, "video", "cannot be decoded", "complete video file", "encode"),
    # the controls
    Wrong({"actions": None}, "actions", "no controls", "give"),
    Wrong({"actions": []}, "actions", "no controls", "give"),
    Wrong({"actions": ""}, "actions", "no controls", "give"),
    Wrong({"actions": "w*0"}, "actions[0]", "repetition", "1 to 10000"),
    Wrong({"actions": "w*99999"}, "actions[0]", "repetition", "1 to 10000"),
    Wrong({"actions": "w*6000 d*6000"}, "actions", "too many controls", "10000 chunks"),
    Wrong({"actions": "w jump"}, "actions[1].action", "unknown action 'jump'", "w, a, s, d"),
    Wrong({"actions": "left_rott"}, "actions[0].action", "unknown action", "did you mean 'left_rot'"),
    Wrong({"actions": "w:99"}, "actions[0].speed", "out of range", "0 to 3"),
    Wrong({"actions": "w:-1"}, "actions[0].speed", "out of range", "0 to 3"),
    Wrong({"actions": "w:nan"}, "actions[0].speed", "not a finite number", "0 to 3"),
    Wrong({"actions": "w:1e999"}, "actions[0].speed", "not a finite number", "0 to 3"),
    Wrong({"actions": [{"action": "w", "speed": True}]}, "actions[0].speed", "not a finite number", "0 to 3"),
    Wrong({"actions": [{"action": "w", "sped": 1}]}, "actions[0]", "unknown key 'sped'", "'speed'"),
    Wrong({"actions": ["w"]}, "actions[0]", "not a control", '{"action"'),
    Wrong({"actions": "[{"}, "actions", "not readable JSON", "w:0.2*3"),
    Wrong({"actions": 3}, "actions", "not a list of controls", "w:0.2*3"),
    Wrong({"actions": "poses:nowhere.txt"}, "actions[0].poses", "No such file|does not exist", "check the path"),
    Wrong({"actions": "poses:short.txt"}, "actions[0].poses", "has 20 rows", "33"),
    Wrong({"actions": "poses:nan.txt"}, "actions[0].poses", "line 1", "keep every value"),
    Wrong({"actions": "poses:skewed.txt"}, "actions[0].poses", "rotation", "orthonormal"),
    Wrong({"actions": "poses:words.txt"}, "actions[0].poses", "line 1", "19"),
    Wrong({"actions": "poses:binary.txt"}, "actions[0].poses", "not text", "19 numbers"),
    Wrong({"actions": [{"poses": "good.txt", "speed": 1}]}, "actions[0].poses", "no speed", "in the file"),
    # who and what
    Wrong({"prompt": None}, "prompt", "no prompt", "describe"),
    Wrong({"prompt": "x" * 10_001}, "prompt", "too many", "at most 10000"),
    Wrong({"session_id": "good-1"}, "session_id", "the id of an earlier row", "its own"),
    Wrong({"session_id": "../../etc/passwd"}, "session_id", "not a legal id", "letters"),
    Wrong({"session_id": "a/b"}, "session_id", "not a legal id", "letters"),
    Wrong({"session_id": "gооd"}, "session_id", "not a legal id", "letters"),  # Cyrillic letters
    Wrong({"session_id": "a\u202eb"}, "session_id", "not a legal id", "letters"),  # turns the text around
    Wrong({"session_id": "x" * 200}, "session_id", "not a legal id", "128"),
    Wrong({"tenant": "../x"}, "tenant", "not a legal id", "letters"),
    Wrong({"preset": "tiny-gamecraf"}, "preset", "unknown preset", "tiny-gamecraft"),
    Wrong({"priority": "urgent"}, "priority", "unknown priority", "interactive, batch"),
    Wrong({"promt": "x"}, "promt", "unknown column", "did you mean 'prompt'"),
    # sizes and sampling
    Wrong({"height": 100}, "height", "not a multiple of 16", "96 or 112"),
    Wrong({"width": 8192, "height": 8192}, "height", "more than", "smaller"),
    Wrong({"height": 0}, "height", "out of range", "16"),
    Wrong({"chunk_frames": 34}, "chunk_frames", "34 frames", "33 or 17"),
    Wrong({"seed": -1}, "seed", "out of range", "from 0"),
    Wrong({"seed": 2**70}, "seed", "out of range", "from 0"),
    Wrong({"seed": 1.5}, "seed", "not a whole number", "from 0"),
    Wrong({"steps": 0}, "steps", "out of range", "1 to 1000"),
    Wrong({"guidance": 0.2}, "guidance", "out of range", "1 to 30"),
    Wrong({"shift": "NaN"}, "shift", "not a finite number", "above 0"),
]

#: Lines that are no row at all; each is one error of field ``row``.
BROKEN = [
    (b'{"session_id": "cut', "not readable JSON"),
    (b'["a", "list"]', "not an object"),
    (b'{"prompt": "a", "prompt": "b"}', "there twice"),
    (b'{"prompt": "\xff\xfe"}', "not valid UTF-8"),
    (b'{"guidance": ' + b"[" * 100_000, "not readable JSON"),
]

GOOD = ["good-1", "good-2", "good-3"]

#: What no file and no line may hold. Rows hold it, too (see ``malformed.URIS``).
SECRETS = {"AWS_SECRET_ACCESS_KEY": "planted/in/environment", "AWS_ENDPOINT_URL": "http://me:planted@127.0.0.1:9"}


def files(folder: Path) -> None:
    """Everything that rows name, whole and harmed."""
    png = (INPUTS / "harbour.png").read_bytes()
    (folder / "good.png").write_bytes(png)
    (folder / "torn.png").write_bytes(png[:400])
    (folder / "torn-header.png").write_bytes(png[:20])
    (folder / "flipped.png").write_bytes(png[:200] + bytes(byte ^ 0x5A for byte in png[200:400]) + png[400:])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("this is no picture\n" * 20)
    Image.new("RGB", (640, 24)).save(folder / "thin.png")
    (folder / "large.png").write_bytes(bomb(9_000))
    (folder / "bomb.png").write_bytes(bomb(30_000))
    (folder / "clip.mp4").write_bytes((INPUTS / "balloons.mp4").read_bytes())
    (folder / "short.mp4").write_bytes(clip(5))
    (folder / "silent.mp4").write_bytes((INPUTS / "balloons.mp4").read_bytes()[:64])
    (folder / "playlist.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n")
    poses = {
        "good": [POSE] * 33,
        "short": [POSE] * 20,
        "nan": [POSE.replace("0.9", "nan")] * 33,
        "skewed": [POSE.replace("1 0 0 0 0 1", "1 1 0 0 0 1")] * 33,
        "words": ["one two three"] * 33,
    }
    for name, rows in poses.items():
        (folder / f"{name}.txt").write_text("\n".join(rows))
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that unfolds to ``side`` x ``side`` grey pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def clip(frames: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, width=48, height=32, pix_fmt="yuv420p")
        for _ in range(frames):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


def good(**changes: Any) -> bytes:
    row = {"image": "good.png", "prompt": "A harbour.", "actions": "w", "seed": 7} | changes
    return json.dumps({name: value for name, value in row.items() if value is not None}).encode()


def command(folder: Path, out: Path, cluster: RayCluster, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "jobs.synthesize", "--preset", "tiny-gamecraft", "--fleet", "laptop", *options]
    argv += ["--manifest", str(folder / "manifest.jsonl"), "--out", str(out), "--metrics-port", "0"]
    argv += ["--address", cluster.address]
    for setting in SMALL:
        argv += ["--set", setting]
    environment = {**os.environ, **ENV, **SECRETS, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wrong")


@pytest.fixture(scope="module")
def cases(place: Path) -> list[Case]:
    return corpus(place)


@pytest.fixture(scope="module")
def folder(place: Path, cases: list[Case]) -> Path:
    """The manifest: good rows first, in the middle and last."""
    files(place)
    wrong = [good(**each.changes) for each in WRONG]
    middle = len(wrong) // 2
    lines = [good(session_id="good-1"), *wrong[:middle], good(session_id="good-2", actions="poses:good.txt")]
    lines += [*wrong[middle:], *(line for line, _ in BROKEN), *(case.line for case in cases)]
    lines.append(good(session_id="good-3", image=None, video="clip.mp4"))
    (place / "manifest.jsonl").write_bytes(b"\n".join(lines))
    return place


@pytest.fixture(scope="module")
def done(ray_cluster: RayCluster, folder: Path) -> subprocess.CompletedProcess[str]:
    return command(folder, folder / "out", ray_cluster)


@pytest.fixture(scope="module")
def errors(done: subprocess.CompletedProcess[str], folder: Path) -> dict[int, list[dict[str, Any]]]:
    """``errors.parquet`` by row."""
    found: dict[int, list[dict[str, Any]]] = {}
    for error in pq.read_table(folder / "out" / "errors.parquet").to_pylist():
        found.setdefault(error["row"], []).append(error)
    return found


def row_of(position: int) -> int:
    """Manifest row of WRONG[position]: a good row before, and another after half of them."""
    return position + 2 + (position >= len(WRONG) // 2)


def test_good_rows_commit_and_the_status_says_that_some_failed(
    done: subprocess.CompletedProcess[str], folder: Path, cases: list[Case]
) -> None:
    assert done.returncode == 3, done.stderr
    rows = Finished(done.returncode, folder / "out").rows()
    assert sorted(rows) == GOOD
    counts = json.loads((folder / "out" / "run.json").read_text())["counts"]
    wrong = len(WRONG) + len(BROKEN) + len(cases)
    assert wrong >= 500
    assert (counts["rows"], counts["committed"], counts["failed"]) == (wrong + len(GOOD), len(GOOD), wrong)


def test_nobody_sees_a_traceback(done: subprocess.CompletedProcess[str]) -> None:
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("position", range(len(WRONG)), ids=lambda position: str(WRONG[position].changes)[:40])
def test_a_wrong_row_has_its_one_error(errors: dict[int, list[dict[str, Any]]], position: int) -> None:
    due = WRONG[position]
    (error,) = errors[row_of(position)]
    assert error["field"] == due.field
    assert any(part in error["reason"] for part in due.reason.split("|")), error["reason"]
    assert due.remedy in error["remedy"], error["remedy"]
    assert error["stage"] == due.stage


@pytest.mark.parametrize("position", range(len(BROKEN)))
def test_a_line_that_is_no_row_has_its_error(errors: dict[int, list[dict[str, Any]]], position: int) -> None:
    (error,) = errors[len(WRONG) + 3 + position]
    assert (error["field"], error["stage"]) == ("row", "validate")
    assert BROKEN[position][1] in error["reason"]
    assert error["remedy"]


def test_a_malformed_row_has_errors_of_its_own(errors: dict[int, list[dict[str, Any]]], cases: list[Case]) -> None:
    for row, case in enumerate(cases, start=len(WRONG) + len(BROKEN) + 3):
        assert errors[row], case.name
        for error in errors[row]:
            assert error["field"].startswith(case.field), (case.name, error)
            assert error["reason"], case.name
            assert error["remedy"], case.name
            assert error["stage"] in ("validate", "encode"), case.name


def test_no_good_row_is_in_the_table(errors: dict[int, list[dict[str, Any]]], cases: list[Case]) -> None:
    wrong = len(WRONG) + len(BROKEN) + len(cases)
    assert len(errors) == wrong
    assert not {1, len(WRONG) // 2 + 2, wrong + len(GOOD)} & set(errors)


def test_no_planted_secret_is_left_anywhere(
    done: subprocess.CompletedProcess[str], folder: Path, ray_cluster: RayCluster
) -> None:
    assert "planted" in (folder / "manifest.jsonl").read_text(errors="replace")
    assert "planted" not in done.stdout + done.stderr
    written = [path for place in (folder / "out", ray_cluster.folder) for path in place.rglob("*") if path.is_file()]
    assert len(written) > 100
    for path in written:
        assert b"planted" not in path.read_bytes(), path


def test_the_summary_lists_them(
    done: subprocess.CompletedProcess[str], errors: dict[int, list[dict[str, Any]]]
) -> None:
    assert "row 2, " in done.stdout
    assert "image: a session starts from an image or a video, and neither is given" in done.stdout
    assert f"and {sum(map(len, errors.values())) - 20} more in" in done.stdout


def test_strict_refuses_the_same_manifest_up_front(
    ray_cluster: RayCluster, folder: Path, errors: dict[int, list[dict[str, Any]]]
) -> None:
    refused = command(folder, folder / "strict", ray_cluster, "--strict")
    assert refused.returncode == 2
    late = sum(found[0]["stage"] == "encode" for found in errors.values())
    assert late >= 50
    assert f"{len(errors) - late} of {len(errors) + len(GOOD)} rows are wrong: row 2, image" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (folder / "strict").exists()
