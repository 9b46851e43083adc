"""Where everything lies below OUT: the one place that spells store keys.

Public: ``data/``, ``videos/``, ``latents/`` and the files at the root. Names that start with an underscore are the
run's own memory; dataset readers skip them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gamecraft_core.base.ids import check_id

RUN = "run.json"
ERRORS = "errors.parquet"
TIMELINE = "timeline.json"
CONTACT_SHEET = "contact_sheet.png"

DATA = "data"
VIDEOS = "videos"
LATENTS = "latents"
COMMITS = "_commits"
STAGING = "_staging"
FAILURES = "_failures"

_CHUNK_KEY = re.compile(rf"{STAGING}/([^/]+)/(\d{{6}})\.sp(\d+)\.[0-9a-f]{{12}}\.safetensors")


def video_key(sha256: str) -> str:
    """Content-addressed: equal videos share one object, and a key's bytes never change."""
    return f"{VIDEOS}/{sha256}.mp4"


def shard_key(index: int, total: int) -> str:
    return f"{DATA}/train-{index:05d}-of-{total:05d}.parquet"


def commit_key(session_id: str) -> str:
    return f"{COMMITS}/{check_id(session_id)}.parquet"


def failure_key(session_id: str) -> str:
    return f"{FAILURES}/{check_id(session_id)}.json"


def staging_folder(session_id: str) -> str:
    return f"{STAGING}/{check_id(session_id)}"


def chunk_key(session_id: str, index: int, sp_degree: int, sha256: str) -> str:
    """A chunk staged before its session's commit. The digest keeps a lane thought dead from replacing other bytes."""
    return f"{staging_folder(session_id)}/{index:06d}.sp{sp_degree}.{sha256[:12]}.safetensors"


class StagedKey(NamedTuple):
    """What the name of a staged chunk says."""

    session_id: str
    chunk: int
    sp_degree: int


def parse_chunk_key(key: str) -> StagedKey | None:
    """The inverse of ``chunk_key``; None for a name that it never makes."""
    match = _CHUNK_KEY.fullmatch(key)
    return StagedKey(match[1], int(match[2]), int(match[3])) if match else None


def latents_folder(session_id: str) -> str:
    return f"{LATENTS}/{check_id(session_id)}"


def latents_key(session_id: str, index: int, sha256: str) -> str:
    return f"{latents_folder(session_id)}/{index:06d}.{sha256[:12]}.f32"
