"""How much there is to do, counted without a device: operations by kind and bytes by the way they go."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """Of one process. FLOPs count a multiplication and an addition as two; bytes are those of one direction.

    ``weight_bytes`` are read from device memory at least once, ``link_bytes`` leave for other ranks in ``exchanges``
    collectives, ``host_bytes`` cross between host and device.
    """

    matmul: float = 0.0
    attention: float = 0.0
    conv: float = 0.0
    weight_bytes: float = 0.0
    link_bytes: float = 0.0
    exchanges: float = 0.0
    host_bytes: float = 0.0

    @property
    def flops(self) -> float:
        return self.matmul + self.attention + self.conv

    def __add__(self, other: Work) -> Work:
        return Work(
            self.matmul + other.matmul,
            self.attention + other.attention,
            self.conv + other.conv,
            self.weight_bytes + other.weight_bytes,
            self.link_bytes + other.link_bytes,
            self.exchanges + other.exchanges,
            self.host_bytes + other.host_bytes,
        )

    def __mul__(self, times: float) -> Work:
        return Work(
            self.matmul * times,
            self.attention * times,
            self.conv * times,
            self.weight_bytes * times,
            self.link_bytes * times,
            self.exchanges * times,
            self.host_bytes * times,
        )
