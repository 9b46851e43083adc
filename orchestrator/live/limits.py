"""Bounds of the service beside those of its engine."""

from __future__ import annotations

from pydantic import Field, model_validator

from gamecraft_core.base.preset import Strict


class Quota(Strict):
    """What one tenant may have; who asks for more is refused, and told of which."""

    sessions: int | None = Field(default=None, ge=1, description="that run or wait at once; none: no own bound")
    chunks: int | None = Field(default=None, ge=1, description="asked for and not yet shown, over all its sessions")
    upload_bytes: int | None = Field(default=None, ge=1, description="in bodies of requests, an hour")


class ServiceLimits(Strict):
    """What one session, and all of them together, may take."""

    idle_seconds: float = Field(default=600.0, gt=0, description="without a control until a session leaves the lanes")
    notice_seconds: float = Field(default=60.0, gt=0, description="how long before that its listeners are told")
    linger_seconds: float = Field(default=60.0, ge=0, description="how long a settled session's events are kept")
    retry_seconds: float = Field(default=5.0, gt=0, description="after which who was refused may try again")
    media_bytes: int = Field(default=256 << 20, ge=0, description="media segments kept in memory, over all sessions")
    max_chunks: int = Field(default=1000, ge=1, description="of one session")
    max_ahead: int = Field(default=64, ge=1, description="controls accepted beyond the chunks that are shown")
    previews: bool = Field(default=True, description="show the latents of what is played before they are decoded")
    progress_seconds: float = Field(default=0.25, gt=0, description="between two looks at the lanes for listeners")

    quota: Quota = Quota()
    quotas: dict[str, Quota] = Field(default={}, description="by tenant, instead of quota")

    def quota_of(self, tenant: str) -> Quota:
        return self.quotas.get(tenant, self.quota)

    @model_validator(mode="after")
    def _notice_in_time(self) -> ServiceLimits:
        if self.notice_seconds > self.idle_seconds:
            raise ValueError("notice_seconds is more than idle_seconds: no notice could be given in time")
        return self
