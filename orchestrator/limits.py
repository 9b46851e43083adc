"""How much may be under way at once. Every bound has one owner here; the board counts, the scheduler obeys."""

from __future__ import annotations

from pydantic import Field

from gamecraft_core.base.preset import Strict


class Limits(Strict):
    """Bounds of one run.

    A chunk is *undecoded* from the moment its denoise is dispatched until its decode has settled. Two per session let
    decode(n) run beside denoise(n+1); more would only grow memory.
    """

    max_sessions: int = Field(default=64, ge=1, description="sessions under way at once")
    max_undecoded_per_session: int = Field(default=2, ge=1)
    max_undecoded: int = Field(default=256, ge=1, description="over all sessions")
    max_unwritten: int = Field(default=256, ge=1, description="fragments decoded or being decoded, not yet stored")
    max_payload_bytes: int = Field(default=4 << 30, ge=1, description="latents, text states and fragments held in Ray")
    max_kept_prompts: int = Field(default=256, ge=1, description="encoded prompts kept for sessions to come")
    max_attempts: int = Field(default=3, ge=1, description="tries of one task when lanes are lost")
