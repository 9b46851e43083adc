"""What a fleet consists of: how many lanes of each role, what each reserves, and how denoise groups are cut.

Values only; no Ray. Sizes are checked here so that a fleet that Ray could never place is refused before it starts.
Denoise groups are to be placed first: ranks reserve more than half a GPU, the other roles fill what is left.
"""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from gamecraft_core.base.preset import Strict
from gamecraft_core.parallel.layout import Layout


class Reservation(Strict):
    """What one process (a lane, or one rank of a group) reserves of Ray, and how deep its own queue is."""

    num_cpus: float = Field(default=0.1, ge=0.0, le=1024.0)
    num_gpus: float = Field(default=0.0, ge=0.0, le=64.0)
    #: None takes the preset's runtime.threads. Another number may change the last bits of a result.
    threads: int | None = Field(default=None, ge=1, le=1024)
    depth: int = Field(default=2, ge=1, le=16, description="orders in flight at once")
    accelerator: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="only on nodes of this Ray accelerator_type (H100)"
    )
    speed: float | None = Field(
        default=None, gt=0.0, description="against others of the role; deadlines choose by it (default: sp_degree)"
    )
    #: Longer than anything between two signs of life: a denoise step (a compilation included), a decode, an encoding.
    stall_seconds: float = Field(default=300.0, gt=0.0, le=86400.0, description="without progress it counts as hung")

    @field_validator("num_cpus", "num_gpus")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("Ray reserves whole units above 1: give a fraction of one or a whole number")
        return value


class LaneSpec(Reservation):
    """A role whose lanes are single actors; one of several GPUs spreads VAE tiles over them (decode, encode)."""

    lanes: int = Field(default=1, ge=1, le=4096, description="at the start, and at least")
    max_lanes: int | None = Field(default=None, ge=1, le=4096, description="at most, as demand wants; none: lanes")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> LaneSpec:
        _check_bounds(self.lanes, self.max_lanes, "lanes")
        return self

    @property
    def least(self) -> int:
        return self.lanes

    @property
    def most(self) -> int:
        return self.max_lanes or self.lanes


class WriteSpec(LaneSpec):
    """Writers wait for the store most of the time, so each carries several orders at once."""

    depth: int = Field(default=8, ge=1, le=64, description="orders in flight at once")
    #: A slow store is no hung writer, and a shard of long videos takes its time.
    stall_seconds: float = Field(default=1800.0, gt=0.0, le=86400.0, description="without progress it counts as hung")


class GroupSpec(Reservation):
    """Equal denoise groups; each has ``sp_degree`` ranks, one process each, and reserves per rank.

    Any degree is legal for any head count: attention pads the heads it has to. (A ring is stricter; it is checked
    where the model is known.)
    """

    groups: int = Field(default=1, ge=1, le=4096, description="at the start, and at least")
    max_groups: int | None = Field(default=None, ge=1, le=4096, description="at most, as demand wants; none: groups")
    sp_degree: int = Field(default=1, ge=1, le=64)
    ring_degree: int = Field(default=1, ge=1, le=64, description="ranks in a ring of keys and values; CUDA, xfuser")
    split_guidance: bool = Field(default=False, description="guided chunks: one branch for each half of the ranks")

    @model_validator(mode="after")
    def _one_gpu_a_rank(self) -> GroupSpec:
        if self.num_gpus > 1:
            raise ValueError(f"num_gpus {self.num_gpus} a rank: a rank drives one GPU, give more ranks (sp_degree)")
        if self.sp_degree > 1 and 0 < self.num_gpus <= 0.5:
            raise ValueError(f"num_gpus {self.num_gpus} lets two ranks of a group share a GPU: reserve more than 0.5")
        return self

    @model_validator(mode="after")
    def _bounds_in_order(self) -> GroupSpec:
        _check_bounds(self.groups, self.max_groups, "groups")
        return self

    @model_validator(mode="after")
    def _ranks_divide(self) -> GroupSpec:
        _ = self.layout  # it refuses, in words, what does not divide
        return self

    @property
    def layout(self) -> Layout:
        return Layout(self.sp_degree, self.ring_degree, self.split_guidance)

    @property
    def ranks(self) -> int:
        return self.groups * self.sp_degree

    @property
    def least(self) -> int:
        return self.groups

    @property
    def most(self) -> int:
        return self.max_groups or self.groups


def _check_bounds(least: int, most: int | None, name: str) -> None:
    if most is not None and most < least:
        raise ValueError(f"max_{name} {most} is less than {name} {least}")


class ElasticSpec(Strict):
    """When lanes come and go between their bounds; for a kind of lane without an upper one nothing of this matters."""

    #: In seconds of a chunk where chunks take minutes: a lane more pays once it has loaded its weights.
    target_wait_seconds: float = Field(default=60.0, ge=0.0, description="an order may wait so long for a lane")
    patience_seconds: float = Field(default=10.0, ge=0.0, description="so long it waits longer before a lane is added")
    idle_seconds: float = Field(default=300.0, gt=0.0, description="so long a lane is not needed before it goes")
    look_seconds: float = Field(default=5.0, gt=0.0, description="between two looks at demand and at nodes about to go")


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
    write: WriteSpec = WriteSpec()
    #: Actors that outlive the program that started them; the next start of the same fleet takes them over.
    detached: bool = False
    elastic: ElasticSpec = ElasticSpec()
    room_seconds: float = Field(default=300.0, gt=0.0, description="a lane waits so long for its place on the cluster")
    start_seconds: float = Field(default=1800.0, gt=0.0, description="and then so long for its weights and warm-up")

    @field_validator("presets")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a preset is named twice")
        return value

    @field_validator("denoise")
    @classmethod
    def _one_layout_a_degree(cls, value: tuple[GroupSpec, ...]) -> tuple[GroupSpec, ...]:
        layouts: dict[int, Layout] = {}
        for group in value:
            if layouts.setdefault(group.sp_degree, group.layout) != group.layout:
                raise ValueError(
                    f"groups of sp_degree {group.sp_degree} differ in ring_degree or split_guidance: a session "
                    "may move between groups of one degree, and its numbers would change"
                )
        return value

    @property
    def fixed(self) -> bool:
        """No lane joins because of demand; then the cluster need not be one that grows."""
        return all(each.most == each.least for each in self.roles)

    @property
    def roles(self) -> tuple[LaneSpec | GroupSpec, ...]:
        return (self.text, self.encode, *self.denoise, self.decode, self.write)

    def reserved(self, presets: int = 1) -> tuple[float, float]:
        """Ray CPUs and GPUs that the fleet reserves at the start: each lane but the writers once a preset."""
        lanes = (self.text, self.encode, self.decode)
        parts: list[tuple[int, Reservation]] = [(presets * lane.lanes, lane) for lane in lanes]
        parts += [(presets * group.ranks, group) for group in self.denoise]
        parts.append((self.write.lanes, self.write))
        cpus = sum(count * part.num_cpus for count, part in parts)
        gpus = sum(count * part.num_gpus for count, part in parts)
        return round(cpus, 4), round(gpus, 4)
