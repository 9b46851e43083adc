"""Checkpoints on S3: converted to, read from, and refused from there; fetched to this machine once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gamecraft_core.base import input_cache
from gamecraft_core.base.errors import UsageError, WeightsError
from gamecraft_core.base.store import open_store
from gamecraft_core.base.store_s3 import S3Store
from gamecraft_core.text.encoders import TextEncoder
from gamecraft_core.weights.files import UNFINISHED
from gamecraft_core.weights.fingerprint import fingerprint
from gamecraft_core.weights.readers import open_dit, open_vae
from gamecraft_core.weights.remote import localised
from jobs.config import load_preset
from jobs.convert import main
from tests.servers.s3 import S3Server

LIMIT = 40_000


@pytest.fixture
def root(moto_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new place on the server, which the environment names; the cache of fetched files is empty."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return moto_server.new_root()


def _states() -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return dict(nn.Sequential(*(nn.Linear(60, 60) for _ in range(8))).state_dict())


def _source(tmp_path: Path) -> Path:
    path = tmp_path / "mp_rank_00_model_states.pt"
    torch.save({"module": _states()}, path)
    return path


def _upload(root: str, folder: Path) -> None:
    store = open_store(root)
    assert isinstance(store, S3Store)
    for path in folder.iterdir():
        store.upload(path.name, path)


def test_a_conversion_to_s3_resumes_and_reads_back(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [str(_source(tmp_path)), root, "--max-shard-bytes", str(LIMIT)]
    upload, names = S3Store.upload, list[str]()

    def failing(self: S3Store, key: str, path: Path) -> None:
        names.append(key)
        if len(names) == 3:
            raise UsageError("the server is gone")
        upload(self, key, path)

    monkeypatch.setattr(S3Store, "upload", failing)
    assert main(argv) == 2
    assert main(argv) == 0
    assert names.count(names[0]) == 1, "a finished shard was sent again"
    assert names.count(names[2]) == 2
    keys = list(open_store(root).list(""))
    assert sum(key.endswith(".safetensors") for key in keys) == len(set(names))
    source = open_dit(root)
    assert source.entries.keys() == _states().keys()
    for key, value in _states().items():
        assert torch.equal(source.read(key), value)
    open_store(root).put(names[0], b"changed")
    assert main(argv) == 0
    assert names.count(names[0]) == 2, "a shard that changed is made again"


def test_large_files_go_up_in_parts(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gamecraft_core.base.store_s3._PART_BYTES", 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (11 << 12) + b"end")
    store = open_store(root)
    assert isinstance(store, S3Store)
    store.upload("a/large", path)
    assert store.stat("a/large").version.strip('"').endswith("-3")
    assert store.get("a/large") == path.read_bytes()
    with pytest.raises(UsageError, match="cannot write s3://no-such-bucket"):
        S3Store("s3://no-such-bucket/x", store._options).upload("k", path)


def test_of_a_folder_only_what_is_read_is_fetched(root: str, tmp_path: Path) -> None:
    store = open_store(root)
    assert isinstance(store, S3Store)
    store.upload("mp_rank_00_model_states.pt", _source(tmp_path))
    store.put("mp_rank_00_model_states_distill.pt", b"large and not wanted")
    store.put("nested/other_model_states.pt", b"not here")
    for uri in (root, f"{root}/", f"{root}/mp_rank_00_model_states.pt"):
        assert open_dit(uri).entries.keys() == _states().keys()
    fetched = [path.name for path in input_cache.default_folder().rglob("*") if path.is_file() and path.suffix == ".pt"]
    assert set(fetched) == {"mp_rank_00_model_states.pt"}


def test_a_vae_file_under_a_vae_folder(root: str, tmp_path: Path) -> None:
    folder = tmp_path / "hyvae"
    folder.mkdir()
    torch.save({"state_dict": {f"vae.{key}": value for key, value in _states().items()}}, folder / "pytorch_model.pt")
    _upload(root, folder)
    assert open_vae(root).entries.keys() == _states().keys()


def test_text_folders_and_the_fingerprint(root: str) -> None:
    preset = load_preset("tiny-gamecraft")
    for name in ("llm", "clip"):
        _upload(f"{root}/{name}", Path(getattr(preset.text, name)))
    text = preset.text.model_copy(update={name: f"{root}/{name}" for name in ("llm", "clip")})
    remote = preset.model_copy(update={"text": text})
    here = localised(remote, {})
    assert all(Path(place).is_dir() for place in (here.text.llm, here.text.clip))
    assert here.weights == preset.weights
    assert fingerprint(remote) == fingerprint(here) == fingerprint(preset), "content counts, not place"
    first, second = (TextEncoder(each, "cpu").encode("a boat") for each in (remote, preset))
    assert (first.states == second.states).all()


def test_options_reach_the_server(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    store = open_store(root, endpoint)
    assert isinstance(store, S3Store)
    store.upload("dit.safetensors", _saved(tmp_path))
    preset = load_preset("tiny-gamecraft")
    weights = {"kind": "files", "dit": f"{root}/dit.safetensors", "vae": "unused"}
    asked = preset.model_copy(update={"weights": preset.weights.model_copy(update=weights)})
    assert Path(localised(asked, endpoint, "weights.dit").weights.dit or "").name == "dit.safetensors"


def _saved(tmp_path: Path) -> Path:
    save_file(_states(), tmp_path / "dit.safetensors")
    return tmp_path / "dit.safetensors"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "there is nothing to read at"),
        ({"a_model_states.pt": b"x", "b_model_states.pt": b"x"}, "several: a_model_states.pt, b_model_states.pt"),
        ({"m.safetensors.index.json": {"weight_map": {"x": "m-1.safetensors"}}}, "lacks m-1.safetensors"),
        ({"m.safetensors": b"cut"}, "m.safetensors is damaged or truncated"),
        ({UNFINISHED: b"{}"}, "there is nothing to read at"),
    ],
)
def test_what_is_wrong_there_is_named(root: str, files: dict[str, Any], reason: str) -> None:
    store = open_store(root)
    for name, content in files.items():
        store.put(name, content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(WeightsError, match=reason) as caught:
        open_dit(root)
    assert caught.value.field == "weights.dit"


def test_a_bucket_that_is_not_there(root: str) -> None:
    with pytest.raises(WeightsError, match=r"weights\.dit: cannot .* s3://no-such-bucket"):
        open_dit("s3://no-such-bucket/x")
