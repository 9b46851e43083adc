"""The stages of a training, one after the other, each from its checkpoint where there is one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from actors.models import keep_freed_memory
from gamecraft_core.base.errors import UsageError
from gamecraft_core.base.preset import Preset
from gamecraft_core.families.gamecraft import GameCraft
from gamecraft_core.micro.episodes import make_episode, to_unit
from gamecraft_core.text.encoders import TextEncoder
from gamecraft_core.training.ahead import Ahead
from gamecraft_core.training.dit_stage import DitObjective, DitSettings, new_dit
from gamecraft_core.training.latents import Pool, Samples
from gamecraft_core.training.loop import Run, Settings, saved_state, train
from gamecraft_core.training.publish import normalise_latents, take_average, write_weights
from gamecraft_core.training.vae_init import new_vae
from gamecraft_core.training.vae_stage import VaeClips, VaeObjective, VaeSettings
from gamecraft_core.vae.model import CausalVae
from gamecraft_core.weights.loader import load_dit, load_vae
from jobs.config import load_preset
from jobs.exits import Exit

#: Clips that a VAE's first scales, and its latents' last ones, are measured on; seeds that no training draws.
_MEASURED, _MEASURED_SEEDS = 24, 2**41
#: Of the transformer as it was before guidance was trained in, in what is published: without it colours run away within
#: ten chunks (a shift of 23 to 31 of 255 against 10 to 15), and what it obeys stays nearly the same.
_BLEND = 0.3

Stopped = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for."""

    preset: str
    out: str
    stages: tuple[str, ...]
    from_weights: bool
    vae_steps: int
    dit_steps: int
    pool: int
    seed: int
    threads: int
    processes: int
    bf16: bool


def train_all(plan: Plan) -> int:
    """Run the stages; an exit status."""
    preset = load_preset(plan.preset)
    if plan.from_weights and preset.weights.kind != "files":
        raise UsageError(
            f"{preset.name} has no published weights", field="from_weights", remedy="leave --from-weights out"
        )
    out = _folder(plan.out)
    torch.set_num_threads(plan.threads)
    keep_freed_memory()
    with _asked_to_stop() as stopped:
        for stage in plan.stages:
            done = _train_vae(plan, preset, out, stopped) if stage == "vae" else _train_dit(plan, preset, out, stopped)
            if not done:
                print(f"stopped in stage {stage}; the checkpoint is in {out}, and the same command goes on", flush=True)
                return Exit.STOPPED
    print(f"trained: {', '.join(f'{out}/{stage}.safetensors' for stage in plan.stages)}", flush=True)
    return Exit.ALL_COMMITTED


def _train_vae(plan: Plan, preset: Preset, out: Path, stopped: Stopped) -> bool:
    cooldown = max(1, plan.vae_steps * 3 // 10)
    settings = Settings(steps=plan.vae_steps, rate=6e-3, vector_rate=2e-3, cooldown=cooldown)
    steps = plan.vae_steps
    data = VaeSettings(plan.seed, clips_from=steps // 2, whole_from=steps * 17 // 20, bf16=plan.bf16)
    checkpoint = out / "vae.ckpt"
    state = saved_state(checkpoint)
    if plan.from_weights:
        vae = CausalVae(preset.vae)
        load_vae(preset, vae)
        vae.requires_grad_(True).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    else:
        vae = new_vae(preset, plan.seed, torch.cat(_clips(preset, 1)))
    with Ahead(VaeClips(preset, data), state.step, processes=plan.processes) as clips:
        run = Run(VaeObjective(vae, data, clips), settings)
        if state.step:
            run.load(checkpoint)
        done = train(run, settings, checkpoint, out / "vae.jsonl", stopped)
    take_average(vae, run.average)
    normalise_latents(vae, _clips(preset, None))
    write_weights(vae.state_dict(), out / "vae.safetensors")
    return done


def _train_dit(plan: Plan, preset: Preset, out: Path, stopped: Stopped) -> bool:
    steps = plan.dit_steps
    cooldown = max(1, steps * 3 // 10)
    guided_from = steps * 3 // 5
    settings = Settings(
        steps, rate=1e-2, vector_rate=2e-3, cooldown=cooldown, average=0.998, keep_at=guided_from, blend=_BLEND
    )
    checkpoint = out / "dit.ckpt"
    state = saved_state(checkpoint)
    if (out / "vae.safetensors").exists():
        weights = preset.weights.model_copy(update={"kind": "files", "vae": str(out / "vae.safetensors")})
        preset = preset.model_copy(update={"weights": weights})
    encoder = TextEncoder(preset, "cpu")
    model: GameCraft = new_dit(preset, plan.seed)
    if plan.from_weights:
        load_dit(preset, model)
        model.requires_grad_(True)
    with Ahead(Samples(preset, plan.seed, plan.bf16), state.taken, processes=plan.processes) as samples:
        pool = Pool(samples, plan.pool, fresh=0.5)
        data = DitSettings(plan.seed, whole_from=steps * 4 // 5, guided_from=guided_from, bf16=plan.bf16)
        objective = DitObjective(preset, model, data, pool, cache(encoder.encode))  # some 1,500 prompts in all
        run = Run(objective, settings)
        if state.step:
            run.load(checkpoint)
        done = train(run, settings, checkpoint, out / "dit.jsonl", stopped)
    write_weights(run.published, out / "dit.safetensors")
    return done


def _clips(preset: Preset, frames: int | None) -> list[torch.Tensor]:
    """Pictures [1, 3, F, H, W] in -1..1 that no training sees."""
    size = (preset.video.height, preset.video.width)
    return [
        to_unit(make_episode(_MEASURED_SEEDS + number, 1, size, preset.control).chunk(0)[:frames])[None]
        for number in range(_MEASURED)
    ]


def _folder(out: str) -> Path:
    if "://" in out:
        raise UsageError(f"{out} is not a local folder", field="out", remedy="name a folder on this machine")
    folder = Path(out).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}", field="out", remedy="name a folder") from error
    return folder


@contextmanager
def _asked_to_stop() -> Iterator[Stopped]:
    """Whether SIGTERM or SIGINT came: the step under way is finished and saved."""
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda came, _: asked.append(came)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
