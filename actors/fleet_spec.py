"""What a fleet consists of: how many lanes of each role, what each reserves, and how denoise groups are cut.

Values only; no Ray. Sizes are checked here so that a fleet that Ray could never place is refused before it starts.
Denoise groups are to be placed first: ranks reserve more than half a GPU, the other roles fill what is left.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, field_validator, model_validator

from gamecraft_core.base.preset import Strict


class Reservation(Strict):
    """What one process (a lane, or one rank of a group) reserves of Ray, and how deep its own queue is."""

    num_cpus: float = Field(default=0.1, ge=0.0, le=1024.0)
    num_gpus: float = Field(default=0.0, ge=0.0, le=64.0)
    #: None takes the preset's runtime.threads. Another number may change the last bits of a result.
    threads: int | None = Field(default=None, ge=1, le=1024)
    depth: int = Field(default=2, ge=1, le=16, description="orders in flight at once")

    @field_validator("num_cpus", "num_gpus")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("Ray reserves whole units above 1: give a fraction of one or a whole number")
        return value


class LaneSpec(Reservation):
    """A role whose lanes are single actors."""

    lanes: int = Field(default=1, ge=1, le=4096)


class GroupSpec(Reservation):
    """Equal denoise groups; each has ``sp_degree`` ranks, one process each, and reserves per rank.

    Any degree is legal for any head count: attention pads the heads it has to.
    """

    groups: int = Field(default=1, ge=1, le=4096)
    sp_degree: int = Field(default=1, ge=1, le=64)

    @model_validator(mode="after")
    def _one_gpu_a_rank(self) -> GroupSpec:
        if self.num_gpus > 1:
            raise ValueError(f"num_gpus {self.num_gpus} a rank: a rank drives one GPU, give more ranks (sp_degree)")
        if self.sp_degree > 1 and 0 < self.num_gpus <= 0.5:
            raise ValueError(f"num_gpus {self.num_gpus} lets two ranks of a group share a GPU: reserve more than 0.5")
        return self

    @property
    def ranks(self) -> int:
        return self.groups * self.sp_degree


class FleetSpec(Strict):
    """All lanes of a cluster, as the files in ``jobs/presets/fleets`` describe them."""

    name: str
    description: str = ""
    #: Presets that every lane holds; empty: the run's preset alone.
    presets: tuple[str, ...] = ()
    text: LaneSpec = LaneSpec()
    encode: LaneSpec = LaneSpec()
    denoise: tuple[GroupSpec, ...] = Field(default=(GroupSpec(),), min_length=1)
    decode: LaneSpec = LaneSpec()
    write: LaneSpec = LaneSpec()

    @field_validator("presets")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a preset is named twice")
        return value

    @property
    def cpus(self) -> float:
        """Ray CPUs that the whole fleet reserves."""
        return round(sum(count * part.num_cpus for count, part in self._processes()), 4)

    @property
    def gpus(self) -> float:
        """Ray GPUs that the whole fleet reserves."""
        return round(sum(count * part.num_gpus for count, part in self._processes()), 4)

    @property
    def processes(self) -> int:
        return sum(count for count, _ in self._processes())

    @property
    def denoise_groups(self) -> int:
        return sum(group.groups for group in self.denoise)

    @property
    def max_sp_degree(self) -> int:
        return max(group.sp_degree for group in self.denoise)

    def _processes(self) -> Iterator[tuple[int, Reservation]]:
        for lane in (self.text, self.encode, self.decode, self.write):
            yield lane.lanes, lane
        for group in self.denoise:
            yield group.ranks, group
