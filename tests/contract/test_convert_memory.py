"""Weights of gigabytes in little memory: a conversion streams, it survives SIGKILL, and a model is filled by mapping.

Each runs in a process of its own, so that what is measured or killed is the product alone. The large source is a sparse
file: it costs no disk and no time, and its mapped pages are as real to the reader as any.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from jobs.convert import main
from tests.conftest import ROOT

GB = 10**9
SHARD = 256 * 10**6
TENSORS = 45
SHAPE = (4096, 8192)
_RSS_ANON = re.compile(r"RssAnon:\s+(\d+) kB")


def anonymous_bytes(pid: int) -> int:
    """Anonymous memory of a process; 0 once it has ended."""
    try:
        found = _RSS_ANON.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def run(argv: Sequence[str]) -> tuple[int, int, str]:
    """Exit status, the highest anonymous memory seen (sampled all the time), and stderr."""
    command = [sys.executable, *argv]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        peak = 0
        while process.returncode is None:
            peak = max(peak, anonymous_bytes(process.pid))
            try:
                process.wait(timeout=0.01)
            except subprocess.TimeoutExpired:
                continue
        assert process.stderr is not None
        return process.returncode, peak, process.stderr.read()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for gigabytes, gone afterwards."""
    free = shutil.disk_usage(tmp_path).free
    assert free > 5 * GB, f"this test writes 3 GB; {tmp_path} has {free / GB:.1f} GB left"
    yield tmp_path
    shutil.rmtree(tmp_path)


def sparse_checkpoint(file: Path) -> None:
    """An official transformer file of 3.02 GB, zeros but for the first numbers of each tensor."""
    states = {f"blocks.{number}.weight": torch.empty(SHAPE, dtype=torch.bfloat16) for number in range(TENSORS)}
    with torch.serialization.skip_data():
        torch.save({"module": states}, file)
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        mapped = torch.load(file, mmap=True, weights_only=True)["module"]
    for number, key in enumerate(states):
        mapped[key][0, :2] = number + 1


def test_a_large_checkpoint_is_streamed(folder: Path) -> None:
    file, out = folder / "mp_rank_00_model_states.pt", folder / "out"
    sparse_checkpoint(file)
    assert file.stat().st_size >= 3 * GB
    status, peak, error = run(["-m", "jobs.convert", str(file), str(out), "--max-shard-bytes", "256MB"])
    assert status == 0, error
    shards = sorted(out.glob("*.safetensors"))
    sizes = [shard.stat().st_size for shard in shards]
    assert sum(sizes) >= 3 * GB
    assert max(sizes) <= SHARD
    assert peak <= max(sizes) + GB
    assert peak > 10**7, "nothing was measured"
    where = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(where) == TENSORS
    for number in range(TENSORS):
        key = f"blocks.{number}.weight"
        with safe_open(out / where[key], "pt") as shard:
            assert shard.get_slice(key)[0, :3].tolist() == [number + 1, number + 1, 0]


#: Converts like the command and kills itself where argv says: after so many bytes, or before so many progress notes.
_KILLED = """
import os, signal, sys
from gamecraft_core.base.store import LocalStore
from gamecraft_core.weights.convert import UNFINISHED, convert
from gamecraft_core.weights.readers import open_dit
_, src, out, limit, kind, left = sys.argv
left = int(left)
def count(size):
    global left
    left -= size
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
put = LocalStore.put
def counted(self, key, data):
    if key == UNFINISHED:
        count(1)
    put(self, key, data)
if kind == "notes":
    LocalStore.put = counted
note = count if kind == "bytes" else lambda size: None
convert(open_dit(src), {"kind": "dit", "dtype": "keep"}, out, int(limit), note=note)
"""


@pytest.mark.parametrize(
    ("kind", "left", "kept"),
    [("bytes", 0, 0), ("bytes", 2_600_000, 2), ("notes", 1, 0), ("notes", 3, 2)],
    ids=["first-piece", "middle-of-a-shard", "before-the-first-note", "published-but-not-noted"],
)
def test_a_killed_conversion_resumes_to_the_same_result(tmp_path: Path, kind: str, left: int, kept: int) -> None:
    """1 MB shards of a quarter each; ``kept`` of them are noted as done when the kill comes."""
    file, out, undisturbed = tmp_path / "x_model_states.pt", tmp_path / "out", tmp_path / "undisturbed"
    torch.save({f"layer.{number}": torch.randn(62_500) for number in range(20)}, file)
    limit = 1_010_000
    status, _, error = run(["-c", _KILLED, str(file), str(out), str(limit), kind, str(left)])
    assert status == -signal.SIGKILL, error
    before = {shard.name: shard.stat().st_ino for shard in out.glob("model-*.safetensors")}
    assert len(before) == kept + (kind == "notes")
    assert not (out / "model.safetensors.index.json").exists()
    for place in (out, undisturbed):
        assert main([str(file), str(place), "--max-shard-bytes", str(limit)]) == 0
    files = [{path.name: path.read_bytes() for path in place.iterdir()} for place in (out, undisturbed)]
    assert files[0] == files[1]
    assert len(files[0]) == 5 + 2
    for name in sorted(before)[:kept]:
        assert (out / name).stat().st_ino == before[name], "a finished shard was written again"


#: Fills a model from the file at argv[1] and prints what it found.
_FILLED = """
import json, re, sys
import torch
from torch import nn
from gamecraft_core.weights.fill import fill
from gamecraft_core.weights.readers import open_dit
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
with torch.device("meta"):
    model = nn.Sequential(*(nn.Linear(4096, 4096, bias=False) for _ in range(8))).bfloat16()
source = open_dit(sys.argv[1])
mapped = sys.argv[1] in open("/proc/self/maps").read()
before = anonymous()
total = sum(float(source.read(key)[0, 0]) for key in source.entries)
opened = anonymous()
fill(model, source, "weights.dit")
size = sum(value.nbytes for value in model.state_dict().values())
report = {"mapped": mapped, "read": opened - before, "held": anonymous() - opened, "size": size, "total": total}
print(json.dumps(report), file=sys.stderr)
"""


@pytest.mark.parametrize("name", ["x_model_states.pt", "x.safetensors"])
def test_a_rank_maps_the_file_and_pays_for_its_own_model_only(tmp_path: Path, name: str) -> None:
    """Ranks of a node map one file: its pages are the page cache's, shared; each rank copies them to its device."""
    states = {f"{number}.weight": torch.full((4096, 4096), number + 1.0, dtype=torch.bfloat16) for number in range(8)}
    path = tmp_path / name
    torch.save({"module": states}, path) if path.suffix == ".pt" else save_file(states, path)
    status, _, error = run(["-c", _FILLED, str(path)])
    assert status == 0, error
    found = json.loads(error)
    os.remove(path)
    assert found["mapped"]
    assert found["total"] == sum(range(1, 9))
    assert found["read"] < 0.1 * found["size"]
    assert 0.9 * found["size"] < found["held"] < 1.3 * found["size"]  # torch itself takes 35 MB when first used
