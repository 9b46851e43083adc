"""The training loop: Muon for matrices, AdamW for vectors, a trapezoid rate, an average of the weights, checkpoints.

Invariant: a step depends on its number, the seed, and what the checkpoint holds, and on nothing else: an interrupted
run that goes on ends with the bits of an unbroken one (same device, same thread count).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gamecraft_core.base.errors import WeightsError
from gamecraft_core.training.muon import Muon

_BETAS = (0.9, 0.98)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a stage is trained. Rates rise over ``warmup`` steps and fall to zero over the last ``cooldown``.

    ``rate`` is that of matrices, ``vector_rate`` that of biases and norms. The averaged weights of step ``keep_at`` are
    kept, and make up the part ``blend`` of those that are published.
    """

    steps: int
    rate: float
    vector_rate: float
    warmup: int = 100
    cooldown: int = 0
    decay: float = 0.01
    average: float = 0.998
    log_every: int = 20
    save_every: int = 250
    keep_at: int | None = None
    blend: float = 0.0


class Objective(Protocol):
    """What is trained, and its loss at a step."""

    @property
    def module(self) -> nn.Module: ...

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss to go down from, and figures to log."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold beside weights and optimizer, as tensors and plain values."""

    def restore(self, state: dict[str, Any]) -> None: ...


def strength(step: int, settings: Settings) -> float:
    """The part of its rates that ``step``, counted from 0, takes."""
    rise = min(1.0, (step + 1) / max(settings.warmup, 1))
    left = settings.steps - step
    fall = min(1.0, left / settings.cooldown) if settings.cooldown else 1.0
    return min(rise, fall)


class Run:
    """One stage in training: objective, optimizer, averaged weights and the number of steps done."""

    def __init__(self, objective: Objective, settings: Settings) -> None:
        self._objective, self._settings = objective, settings
        self._named = dict(objective.module.named_parameters())
        self.average = {name: value.detach().clone() for name, value in self._named.items()}
        matrices = [value for value in self._named.values() if value.dim() > 1]
        vectors = [value for value in self._named.values() if value.dim() <= 1]
        self._optimizers = {
            "matrices": Muon(matrices, settings.rate, settings.decay),
            "vectors": torch.optim.AdamW(vectors, settings.vector_rate, _BETAS, weight_decay=0.0),
        }
        self._kept: dict[str, Tensor] | None = None
        self.step = 0

    @property
    def published(self) -> dict[str, Tensor]:
        """The averaged weights, with the ``blend`` of those that were kept."""
        if self._kept is None:
            return self.average
        return {name: torch.lerp(value, self._kept[name], self._settings.blend) for name, value in self.average.items()}

    def advance(self) -> dict[str, float]:
        """One step; returns its figures."""
        part, settings = strength(self.step, self._settings), self._settings
        loss, figures = self._objective.loss(self.step)
        self._objective.module.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.get_total_norm(value.grad for value in self._named.values() if value.grad is not None)
        for optimizer, rate in zip(self._optimizers.values(), (settings.rate, settings.vector_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = part * rate
            if bool(norm.isfinite()):
                optimizer.step()
        self.step += 1
        keep = min(self._settings.average, (1 + self.step) / (10 + self.step))
        values = [value.detach() for value in self._named.values()]
        torch._foreach_lerp_(list(self.average.values()), values, 1 - keep)
        if self.step == settings.keep_at:
            self._kept = {name: value.clone() for name, value in self.average.items()}
        return {"loss": float(loss.detach()), "grad_norm": float(norm), "strength": part, **figures}

    def save(self, path: Path) -> None:
        """Write a checkpoint at once or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        content = {
            "step": self.step,
            "weights": {name: value.detach() for name, value in self._named.items()},
            "average": self.average,
            "kept": self._kept,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
            "objective": self._objective.state(),
            "settings": asdict(self._settings),
        }
        torch.save(content, scratch)
        scratch.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; WeightsError where it is another model's or damaged."""
        content = _read(path)
        try:
            with torch.no_grad():
                for name, value in self._named.items():
                    value.copy_(content["weights"][name])
                    self.average[name].copy_(content["average"][name])
            for name, optimizer in self._optimizers.items():
                optimizer.load_state_dict(content["optimizers"][name])
            kept = content.get("kept")
            self._kept = kept and {name: kept[name].clone() for name in self._named}
            self._objective.restore(content["objective"])
            self.step = int(content["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{path} is no checkpoint of this stage and preset: {error}", field="out", remedy="name another folder"
            ) from error


@dataclass(frozen=True, slots=True)
class Saved:
    """Where a checkpoint stands: its step, and how many items of data it has taken beyond those of its steps."""

    step: int = 0
    taken: int = 0


def saved_state(path: Path) -> Saved:
    """What ``path`` says of itself; all zero where there is none."""
    if not path.exists():
        return Saved()
    content = _read(path)
    return Saved(int(content["step"]), int(content["objective"].get("taken", 0)))


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not {"step", "weights", "average", "optimizers", "objective"} <= content.keys():
            raise ValueError("parts are missing")
    except Exception as error:  # a damaged file makes torch raise whatever it met first
        raise WeightsError(f"{path} is no checkpoint: {error}", field="out", remedy="name another folder") from error
    return content


def train(run: Run, settings: Settings, checkpoint: Path, log: Path, stopped: Callable[[], bool]) -> bool:
    """Advance to the last step; False where it was told to stop. Either way the checkpoint holds where it stands."""
    began, first = time.monotonic(), run.step
    seen: dict[str, list[float]] = {}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        while run.step < settings.steps and not stopped():
            for name, value in run.advance().items():
                seen.setdefault(name, []).append(value)
            if run.step % settings.log_every == 0:
                pace = (time.monotonic() - began) / (run.step - first)
                means = {name: sum(values) / len(values) for name, values in seen.items()}
                stream.write(json.dumps({"step": run.step, "seconds_a_step": round(pace, 3), **means}) + "\n")
                stream.flush()
                seen = {}
            if run.step % settings.save_every == 0:
                run.save(checkpoint)
    run.save(checkpoint)
    return run.step >= settings.steps
