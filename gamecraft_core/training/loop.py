"""The training loop: AdamW with a trapezoid rate, an average of the weights, checkpoints that go on bit by bit.

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

_BETAS = (0.9, 0.98)
_CLIP = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How a stage is trained. The rate rises over ``warmup`` steps and falls to zero over the last ``cooldown``."""

    steps: int
    rate: float
    warmup: int = 100
    cooldown: int = 0
    decay: float = 0.01
    average: float = 0.998
    log_every: int = 20
    save_every: int = 250


class Objective(Protocol):
    """What is trained, and its loss at a step."""

    @property
    def module(self) -> nn.Module: ...

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss to go down from, and figures to log."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold beside weights and optimizer, as tensors and plain values."""

    def restore(self, state: dict[str, Any]) -> None: ...


def rate_at(step: int, settings: Settings) -> float:
    """The learning rate of ``step``, counted from 0."""
    rise = min(1.0, (step + 1) / max(settings.warmup, 1))
    left = settings.steps - step
    fall = min(1.0, left / settings.cooldown) if settings.cooldown else 1.0
    return settings.rate * min(rise, fall)


class Run:
    """One stage in training: objective, optimizer, averaged weights and the number of steps done."""

    def __init__(self, objective: Objective, settings: Settings) -> None:
        self._objective, self._settings = objective, settings
        self._named = dict(objective.module.named_parameters())
        self.average = {name: value.detach().clone() for name, value in self._named.items()}
        matrices = [value for value in self._named.values() if value.dim() > 1]
        vectors = [value for value in self._named.values() if value.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": settings.decay}, {"params": vectors, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=settings.rate, betas=_BETAS, eps=1e-8)
        self.step = 0

    def advance(self) -> dict[str, float]:
        """One step; returns its figures."""
        rate = rate_at(self.step, self._settings)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss, figures = self._objective.loss(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._named.values(), _CLIP)
        if bool(norm.isfinite()):
            self._optimizer.step()
        self.step += 1
        keep = min(self._settings.average, (1 + self.step) / (10 + self.step))
        values = [value.detach() for value in self._named.values()]
        torch._foreach_lerp_(list(self.average.values()), values, 1 - keep)
        return {"loss": float(loss.detach()), "grad_norm": float(norm), "rate": rate, **figures}

    def save(self, path: Path) -> None:
        """Write a checkpoint at once or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        content = {
            "step": self.step,
            "weights": {name: value.detach() for name, value in self._named.items()},
            "average": self.average,
            "optimizer": self._optimizer.state_dict(),
            "objective": self._objective.state(),
            "settings": asdict(self._settings),
        }
        torch.save(content, scratch)
        scratch.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; WeightsError where it is another model's or damaged."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            with torch.no_grad():
                for name, value in self._named.items():
                    value.copy_(content["weights"][name])
                    self.average[name].copy_(content["average"][name])
            self._optimizer.load_state_dict(content["optimizer"])
            self._objective.restore(content["objective"])
            self.step = int(content["step"])
        except (OSError, EOFError, KeyError, RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{path} is no checkpoint of this stage and preset: {error}", field="out", remedy="name another folder"
            ) from error


def train(run: Run, settings: Settings, checkpoint: Path, log: Path, stopped: Callable[[], bool]) -> bool:
    """Advance to the last step; False where it was told to stop. Either way the checkpoint holds where it stands."""
    began, first = time.monotonic(), run.step
    sums: dict[str, float] = {}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        while run.step < settings.steps and not stopped():
            for name, value in run.advance().items():
                sums[name] = sums.get(name, 0.0) + value
            if run.step % settings.log_every == 0:
                pace = (time.monotonic() - began) / (run.step - first)
                means = {name: value / settings.log_every for name, value in sums.items()}
                stream.write(json.dumps({"step": run.step, "seconds_a_step": round(pace, 3), **means}) + "\n")
                stream.flush()
                sums = {}
            if run.step % settings.save_every == 0:
                run.save(checkpoint)
    run.save(checkpoint)
    return run.step >= settings.steps
