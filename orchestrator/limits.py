"""How much may be under way at once. Every bound has one owner here; the board counts, the scheduler obeys."""

from __future__ import annotations

from pydantic import Field

from gamecraft_core.base.preset import Strict


class TenantLimits(Strict):
    """What one tenant may have."""

    weight: float = Field(default=1.0, gt=0, description="its share of busy lanes, against the others' weights")
    max_sessions: int | None = Field(default=None, ge=1, description="sessions under way at once; none: no own bound")


class Limits(Strict):
    """Bounds of one run.

    A chunk is *undecoded* from the moment its denoise is dispatched until its decode has settled. Two per session let
    decode(n) run beside denoise(n+1); more would only grow memory.
    """

    max_sessions: int = Field(default=64, ge=1, description="sessions under way at once")
    max_queued: int = Field(default=1024, ge=0, description="sessions that may wait to be let in; more are refused")
    tenants: dict[str, TenantLimits] = Field(default={}, description="by name")
    other_tenants: TenantLimits = TenantLimits()
    first_chunk_seconds: float = Field(default=1.0, gt=0, description="when a live session's first chunk is due")
    max_undecoded_per_session: int = Field(default=2, ge=1)
    max_undecoded: int = Field(default=256, ge=1, description="over all sessions")
    max_unwritten: int = Field(default=256, ge=1, description="fragments decoded or being decoded, not yet stored")
    max_payload_bytes: int = Field(default=4 << 30, ge=1, description="latents, text states and fragments held in Ray")
    max_kept_prompts: int = Field(default=256, ge=1, description="encoded prompts kept for sessions to come")
    max_attempts: int = Field(default=3, ge=1, description="lanes that one task may lose before it is set aside")
    max_out_of_memory: int = Field(default=2, ge=1, description="the same, for lanes that ran out of memory under it")
    max_rewinds: int = Field(default=10, ge=1, description="times a session may go back to what is durable of it")
    max_rebuilds: int = Field(default=8, ge=1, description="losses of one lane in a row, without an order done between")
    max_outage_seconds: float = Field(default=6 * 3600, gt=0, description="how long an absent store is waited for")
    backoff_seconds: float = Field(default=0.5, gt=0, description="first pause before a retry; each next one doubles")
    max_backoff_seconds: float = Field(default=15.0, gt=0, description="longest pause before a retry")
    grace_seconds: float = Field(default=25.0, ge=0, description="from a request to stop until work is given up")

    def of_tenant(self, name: str) -> TenantLimits:
        return self.tenants.get(name, self.other_tenants)

    def backoff(self, times: int) -> float:
        """Seconds to wait before try number ``times`` + 1, when ``times`` (from 1) have failed in a row."""
        return min(self.max_backoff_seconds, self.backoff_seconds * 2.0 ** min(times - 1, 30))
