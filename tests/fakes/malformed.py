"""Manifest rows that no run may take: each with the field its error must name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes import malformed_files as files

POSE = "0 0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"

#: Characters that make one id look like another, turn it around, or mean something to a file system or a terminal.
TRICKS = {
    "dot": ".",
    "dots": "..",
    "up": "../a",
    "up-late": "a/../../b",
    "slash": "a/b",
    "backslash": "a\\b",
    "drive": "C:\\a",
    "root": "/etc/passwd",
    "nul": "a\0b",
    "newline": "a\nb",
    "escape": "a\x1b[31mb",
    "space": "a b",
    "end": "a ",
    "hidden": ".a",
    "dash": "-rf",
    "percent": "a%2e%2e%2fb",
    "quote": "a'b",
    "dollar": "$HOME",
    "star": "a*",
    "tilde": "~root",
    "query": "a?versionId=1",
    "cyrillic": "gооd",
    "full-width": "ａｂｃ",
    "full-width-slash": "a／b",
    "full-width-dots": "．．",
    "one-dot-leader": "a․․b",
    "division-slash": "a∕b",
    "turned": "a\u202egnp.b",
    "isolated": "a\u2066b\u2069",
    "zero-width": "a\u200bb",
    "joiner": "a\u200db",
    "no-break": "a\u00a0b",
    "byte-order": "\ufeffa",
    "combining": "a\u0301",
    "ligature": "ﬁle",
    "dotless": "ıd",
    "kelvin": "\u212aey",
    "emoji": "a😀",
    "surrogate": "a\ud800",
    "long": "x" * 129,
    "very-long": "x" * 9000,
    "device": "con",
    "device-dotted": "NUL.txt",
    "port": "Lpt1",
    "empty": "",
}

#: What is no number that a field could take, in JSON's notation.
NO_NUMBERS = ("NaN", "-Infinity", "1e999", "true", "false", "1" + "0" * 400, '"many"', "[1]", '{"a": 1}', "-1")
NUMERIC = ("seed", "steps", "guidance", "shift", "height", "width", "chunk_frames")

URIS = (
    "ftp://host/a.png",
    "http://host/a.png",
    "https://key:planted@host/a.png?X-Amz-Signature=planted",
    "data://image/png;base64,AAAA",
    "javascript://a/b.png",
    "S3://bucket/a.png",
    "FILE:///good.png",
    "file://host/a.png",
    "s3://",
    "s3:///a.png",
    "s3://bucket",
    "s3://bucket/",
    "s3://[oops/a.png",
    "s3://buc ket/a.png",
    "s3://key:planted@bucket/a.png",
    "s3://bucket/a.png?X-Amz-Security-Token=planted",
    "s3://bucket/../other/a.png",
    "s3://bucket/a/./b.png",
    "s3://../a.png",
    "s3://bucket/a\u0000.png",
    "://",
    " ",
    "",
    "a\u0000.png",
    "a\n.png",
    "\ud800.png",
    "x" * 5000,
)

ACTIONS: tuple[Any, ...] = (
    None,
    "",
    [],
    {},
    3,
    True,
    "w*0",
    "w*-1",
    "w*99999",
    "w*1e3",
    "w*" + "9" * 400,
    "w*10000 w",
    "jump",
    "W",
    "w:",
    "w:nan",
    "w:inf",
    "w:-0.1",
    "w:3.1",
    "w:1e999",
    "w:0x1",
    "w+w",
    "w++d",
    "+",
    "*",
    ":",
    "[",
    "[" * 100_000,
    "[" * 500 + "]" * 500,
    '[{"action": "w", "speed": NaN}]',
    '[{"action": "w", "speed": 1' + "0" * 5000 + "}]",
    "w " * 600_000,
    ["w"],
    [None],
    [[]],
    [{}],
    [{"action": None}],
    [{"action": "w", "speed": True}],
    [{"action": "w", "speed": [1]}],
    [{"action": ["w"]}],
    [{"action": {"w": 1}}],
    [{"action": "w", "sped": 1}],
    [{"action": "w", "poses": "good.txt"}],
    [{"poses": 3}],
    [{"poses": ""}],
    [{"poses": "good.txt", "speed": 1}],
    [{"keys": "w"}],
    [{"keys": [{"action": "w"}, {"action": "w"}]}],
    [{"keys": [{"speed": 1}]}],
    [{"keys": [{"action": "w"}] * 20}],
    [{"mouse": [1]}],
    [{"mouse": [1, True]}],
    [{"mouse": [1e9, 0]}],
    [{"mouse": "up"}],
    "poses:",
    "poses:nowhere.txt",
    "poses:/dev/zero",
    "poses:pipe.png",
    "poses:folder.png",
    "poses:s3://key:planted@bucket/a.txt",
)

POSES = {
    "short": [POSE] * 20,
    "words": ["one two three"] * 33,
    "nan": [POSE.replace("0.9", "nan")] * 33,
    "infinite": [POSE.replace("0.9", "1e999")] * 33,
    "huge": [POSE.replace("0.9", "9" * 400)] * 33,
    "skewed": [POSE.replace("1 0 0 0 0 1", "1 1 0 0 0 1")] * 33,
    "mirrored": [POSE.removesuffix("1 0") + "-1 0"] * 33,
    "flat": [" ".join(["0"] * 19)] * 33,
}

#: Lines that are no row at all.
LINES = (
    b'{"session_id": "cut',
    b"[1, 2]",
    b"null",
    b"7",
    b'"text"',
    b"NaN",
    b"{]",
    b"{'image': 'good.png'}",
    b'{"prompt": "a", "prompt": "b"}',
    b'{"prompt": "\xff\xfe"}',
    b"\xfe\xff\x00{\x00}",
    b'{"prompt": "a\x00b"}',
    b'{"seed": 01}',
    b'{"seed": ' + b"9" * 5000 + b"}",
    b'{"guidance": ' + b"[" * 100_000,
    b"{" + b'"a": {' * 50_000,
    b'{"prompt": "' + b"x" * (4 << 20) + b'"}',
    b"\x1f\x8b\x08\x00" + bytes(20),
)


@dataclass(frozen=True)
class Case:
    """One bad row: its line in a JSONL manifest, and the field that every error of it must start with."""

    name: str
    line: bytes
    field: str


def row(**changes: Any) -> bytes:
    """A good row, changed; None takes a cell out."""
    cells = {"image": "good.png", "prompt": "A harbour.", "actions": "w", "seed": 7} | changes
    return json.dumps({name: value for name, value in cells.items() if value is not None}).encode()


def corpus(folder: Path) -> list[Case]:
    """Every case; the files that rows name are put into ``folder``, which stands beside the manifest."""
    (folder / "good.png").write_bytes(files.picture("PNG"))
    (folder / "good.txt").write_text("\n".join([POSE] * 33))
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, lines in POSES.items():
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return [*_files(folder), *_cells()]


def _files(folder: Path) -> Iterator[Case]:
    for name, data in files.images():
        (folder / f"image-{name}").write_bytes(data)
        yield Case(f"image {name}", row(image=f"image-{name}"), "image")
    for name, data in files.videos():
        (folder / f"video-{name}").write_bytes(data)
        yield Case(f"video {name}", row(image=None, video=f"video-{name}"), "video")
    for path in files.places(folder):
        yield Case(f"image at {path[:40]}", row(image=path), "image")
        yield Case(f"video at {path[:40]}", row(image=None, video=path), "video")


def _cells() -> Iterator[Case]:
    for uri in URIS:
        yield Case(f"image {uri[:40]!r}", row(image=uri), "image")
    for trick, text in TRICKS.items():
        yield Case(f"id {trick}", row(session_id=text), "session_id")
        yield Case(f"tenant {trick}", row(tenant=text), "tenant")
    for field in NUMERIC:
        for number in NO_NUMBERS:
            line = row().removesuffix(b"}") + f', "{field}": {number}}}'.encode()
            yield Case(f"{field} {number[:20]}", line if field != "seed" else line.replace(b'"seed": 7, ', b""), field)
    for place, actions in enumerate(ACTIONS):
        yield Case(f"actions {place}", row(actions=actions), "actions")
    for name in (*POSES, "binary"):
        yield Case(f"poses {name}", row(actions=f"poses:{name}.txt"), "actions")
    for place, line in enumerate(LINES):
        yield Case(f"line {place}", line, "row")
    yield Case("no start", row(image=None), "image")
    yield Case("two starts", row(video="good.png"), "image")
    for prompt in (None, " \t", "x" * 10_001, 5, "a\ud800"):
        yield Case(f"prompt {str(prompt)[:9]!r}", row(prompt=prompt), "prompt")
    for column in ("promt", "__class__", "\u202eimage", "a\x1b[31m", "x" * 5000, "s3://key:planted@bucket/a"):
        yield Case(f"column {column[:20]!r}", row(**{column: "x"}), "")
