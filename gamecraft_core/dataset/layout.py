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
#: What a service has promised its callers, and what they have sent it.
SESSIONS = "_sessions"
INPUTS = "_inputs"

_PROMISE_KEY = re.compile(rf"{SESSIONS}/([^/]+)/([^/]+)/(request|controls-(\d{{6}})|finish|cancel)\.json")
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


def promises_folder(tenant: str, session_id: str = "") -> str:
    """Of one session, or of all of a tenant's."""
    folder = f"{SESSIONS}/{check_id(tenant)}"
    return f"{folder}/{check_id(session_id)}" if session_id else folder


def promise_key(tenant: str, session_id: str, what: str) -> str:
    """``what``: request, finish, cancel, or ``controls_from`` a chunk."""
    return f"{promises_folder(tenant, session_id)}/{what}.json"


def controls_from(index: int) -> str:
    """Names the controls that were accepted for chunk ``index`` and those after it."""
    return f"controls-{index:06d}"


class PromiseKey(NamedTuple):
    """What the name of a promise says; ``first`` is the chunk that controls begin with."""

    tenant: str
    session_id: str
    what: str
    first: int


def parse_promise_key(key: str) -> PromiseKey | None:
    """The inverse of ``promise_key``; None for a name that it never makes."""
    match = _PROMISE_KEY.fullmatch(key)
    return PromiseKey(match[1], match[2], match[3], int(match[4] or 0)) if match else None


def input_key(sha256: str, ending: str) -> str:
    """What a caller sent along, under its content."""
    return f"{INPUTS}/{sha256}{ending}"
