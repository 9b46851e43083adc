"""What a chaos run makes: a manifest drawn from the seed, and the job's command line for it.

Every eighth row names a picture that shows itself torn when it is decoded: the failing of a session is part of the
protocol. Every other row has to be committed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ray.runs import INPUTS

PRESET = "tiny-gamecraft"
CHUNK_FRAMES = 17
ROWS_PER_SHARD = 4
_IMAGES = ("harbour.png", "forest.png", "corridor.png")
_ACTIONS = ("w", "a", "s", "d", "left_rot:2", "right_rot:1", "up_rot:1", "w:0.5", "d:0.1")
_TORN_EVERY = 8
_TORN_BYTES = 400
_CHUNKS = (2, 4)

_SETTINGS = {
    "video.height": 32,
    "video.width": 48,
    "sampling.steps": 2,
    "output.rows_per_shard": ROWS_PER_SHARD,
}

#: So short that a fault costs little time, and no number of them makes the job give up.
_PATIENCE = {
    "limits.max_sessions": 8,
    "limits.max_attempts": 10_000,
    "limits.max_out_of_memory": 10_000,
    "limits.max_rewinds": 10_000,
    "limits.max_rebuilds": 10_000,
    "limits.max_outage_seconds": 600,
    "limits.backoff_seconds": 0.2,
    "limits.max_backoff_seconds": 2,
}

_LANE = {"num_cpus": 0.1, "stall_seconds": 20}
_GROUP = {"num_cpus": 0.1, "stall_seconds": 6}


@dataclass(frozen=True, slots=True)
class Workload:
    """``rows`` of a manifest that lies at ``path``; ``torn`` are the ids of those that must fail."""

    path: Path
    rows: tuple[Mapping[str, Any], ...]
    torn: frozenset[str]

    @property
    def chunks(self) -> dict[str, int]:
        """Of every session that must be committed."""
        return {
            row["session_id"]: len(row["actions"].split()) for row in self.rows if row["session_id"] not in self.torn
        }


def make(folder: Path, seed: int, sessions: int) -> Workload:
    """Write the manifest of ``seed`` with its torn picture into ``folder``."""
    generator = random.Random(f"framelane chaos manifest {seed}")
    folder.mkdir(parents=True, exist_ok=True)
    torn = folder / "torn.png"
    torn.write_bytes((INPUTS / _IMAGES[0]).read_bytes()[:_TORN_BYTES])
    rows: list[dict[str, Any]] = []
    for number in range(sessions):
        name = f"c{number:03d}"
        actions = generator.choices(_ACTIONS, k=generator.randint(*_CHUNKS))
        rows.append(
            {
                "session_id": name,
                "image": str(torn if number % _TORN_EVERY == _TORN_EVERY // 2 else INPUTS / generator.choice(_IMAGES)),
                "prompt": f"A place called {name}.",
                "actions": " ".join(actions),
                "seed": generator.randrange(1 << 31),
                "chunk_frames": CHUNK_FRAMES,
            }
        )
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Workload(path, tuple(rows), frozenset(row["session_id"] for row in rows if row["image"] == str(torn)))


def fleet(folder: Path, *degrees: int, lanes: int = 2, name: str = "chaos") -> Path:
    """A fleet file with a denoise group of each of ``degrees``, and ``lanes`` decoders and writers."""
    described = {
        "name": name,
        "text": _LANE,
        "encode": _LANE,
        "denoise": [{**_GROUP, "groups": 1, "sp_degree": degree} for degree in degrees],
        "decode": {**_LANE, "lanes": lanes},
        "write": {**_LANE, "lanes": lanes, "stall_seconds": 60},
    }
    path = folder / f"fleet-{name}.yaml"
    path.write_text(json.dumps(described, indent=1))
    return path


def command(work: Workload, out: str, fleet: Path, address: str, *, detached: bool) -> list[str]:
    """The job's module and arguments."""
    line = ["jobs.synthesize", "--preset", PRESET, "--manifest", str(work.path), "--out", out, "--fleet", str(fleet)]
    line += ["--address", address, "--metrics-port", "0", "--keep-latents"]
    for key, value in {**_SETTINGS, **_PATIENCE, "fleet.detached": str(detached).lower()}.items():
        line += ["--set", f"{key}={value}"]
    return line
