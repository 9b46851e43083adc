"""Where everything lies below OUT: the one place that spells store keys.

Public: ``data/``, ``videos/``, ``latents/`` and the files at the root. Names that start with an underscore are the
run's own memory; dataset readers skip them.
"""

from __future__ import annotations

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


def fragment_key(session_id: str, index: int, sha256: str) -> str:
    """A chunk staged before its session's commit. The digest keeps a lane thought dead from replacing newer bytes."""
    return f"{staging_folder(session_id)}/{index:06d}.{sha256[:12]}.m4s"


def latents_key(session_id: str, index: int, sha256: str) -> str:
    return f"{LATENTS}/{check_id(session_id)}/{index:06d}.{sha256[:12]}.f32"
