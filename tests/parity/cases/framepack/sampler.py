"""The shift rule, sigma tables, UniPC on an analytic model with its coefficients, and whole calls of the sampler."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.dit.tea_cache import POLYNOMIAL, TeaCache
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.sampling.denoise import denoise, told_in
from gamecraft_core.sampling.guidance import combine, embedded
from gamecraft_core.sampling.unipc import UniPc, Variant, update
from gamecraft_core.timeline.schedule import Schedule, make_schedule, shift_of_tokens
from tests.parity.cases.framepack.models import config, denoiser
from tests.parity.cases.framepack.transformer import shown
from tests.parity.cases.hunyuan.dit import trimmed
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

SIGMA_ATOL, TIMESTEP_ATOL, TOY_ATOL, CALL_ATOL, TEA_ATOL = 2e-7, 2e-4, 2e-6, 5e-4, 2e-3
#: Names of tensors that need no comparison.
INPUTS = r"sample_inputs\.\w+|\w+\.(?:noise|initial_latent|x_init|latent_indices)"
_TOY, _CALL, _TEA = "toy", "sample_", "teacache"
_FLOAT32 = 2.0**-23


def table_cases(folder: Folder, name: str) -> Iterator[Case]:
    stored = folder.json(name)
    yield Case("sampler/shift", partial(_shifts, stored["flux_mu"]))
    for one in stored["sigmas"]:
        yield Case(f"sampler/n{one['steps']}_L{one['seq_len']}", partial(_table, one))
    if "guidance" in stored:
        yield Case("sampler/guidance", partial(_guidance, stored["guidance"]))
    for one in stored["unipc"]:
        yield Case(f"sampler/{one['key']}", partial(_coefficients, one))


def _shifts(stored: list[dict[str, Any]], check: Check) -> None:
    for one in stored:
        made = shift_of_tokens(one["seq_len"])
        values = torch.tensor([math.log(made), made]), torch.tensor([one["mu"], one["shift"]])
        check.close(f"{one['seq_len']} tokens", *values, SIGMA_ATOL)


def _schedule(steps: int, tokens: int) -> Schedule:
    return make_schedule(steps, shift_of_tokens(tokens), by_odds=True)


def _table(stored: dict[str, Any], check: Check) -> None:
    made = _schedule(stored["steps"], stored["seq_len"])
    rounded = told_in(torch.bfloat16, made).timesteps
    tables = {
        "sigmas": (made.sigmas, SIGMA_ATOL),
        "timestep_fp32": (made.timesteps, TIMESTEP_ATOL),
        "timestep_bf16": (rounded, 0.0),
    }
    for name, (values, tolerance) in tables.items():
        if name in stored:
            check.close(name, torch.from_numpy(values), torch.tensor(stored[name]), tolerance)


def _guidance(stored: dict[str, Any], check: Check) -> None:
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        check.equal(name, embedded(stored["distilled_guidance_scale"], dtype), stored[name])


def _coefficients(stored: dict[str, Any], check: Check) -> None:
    """Every update. Stored ones were computed in float32, where a moment of order k loses its digits to ``h**k``."""
    sigmas = _schedule(stored["steps"], stored["seq_len_for_mu"]).sigmas
    check.equal("model_calls", len(sigmas) - 1, stored["model_calls"])
    check.equal("updates", len(sigmas) - 2, len(stored["steps_detail"]))
    for step, one in enumerate(stored["steps_detail"]):
        _update(sigmas, step, stored["variant"], one, check)


def _update(sigmas: Any, step: int, variant: Variant, stored: dict[str, Any], check: Check) -> None:
    made, order = update(sigmas, step, variant=variant), stored["order"]
    spacings = [*made.spacings, 1.0]
    powers = np.vander(spacings, order, increasing=True).T
    lost = 1e-5 + 4 * _FLOAT32 / stored["h"] ** order
    few = 8 * _FLOAT32 / stored["h"]
    values: dict[str, tuple[Any, float]] = {
        "t_prev": (sigmas[step], SIGMA_ATOL),
        "t": (sigmas[step + 1], SIGMA_ATOL),
        "h": (-math.log(made.shrink), SIGMA_ATOL),
        "rks": (spacings, few),
        "R": (powers, 4 * few),
        "B_h": (made.scale, SIGMA_ATOL),
        "h_phi_1": (made.phi, SIGMA_ATOL),
        "rhos_p": (made.predictor, lost),
        "rhos_c": (made.corrector, lost),
    }
    if order > 1:
        values["b"] = powers @ made.corrector, lost
    check.equal(f"update {step} order", made.order, order)
    for name, (value, tolerance) in values.items():
        expected = torch.tensor(stored[name] or [], dtype=torch.float64)
        check.close(f"update {step} {name}", torch.tensor(value, dtype=torch.float64), expected, tolerance)


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for name in sorted({name.split(".")[0] for name in file.names()}):
        if name.startswith(_TOY):
            yield Case(name, partial(_toy, folder, file, name))
        elif f"{name}.denoised" in file:
            yield Case(name, partial(_call, folder, file, name))
        elif name == _TEA:
            yield Case(name, partial(_tea, folder, file, name))


@dataclass
class Recorded:
    """A solver, and what it saw: corrected latents and clean predictions of every step."""

    sigmas: Any
    solver: UniPc
    latents: list[Tensor] = field(default_factory=list)
    clean: list[Tensor] = field(default_factory=list)

    def __call__(self, latents: Tensor, velocity: Tensor, step: int) -> Tensor:
        following = self.solver(latents, velocity, step)
        assert self.solver.latents is not None
        self.latents.append(self.solver.latents)
        self.clean.append(latents - float(self.sigmas[step]) * velocity)
        return following


def _toy(folder: Folder, file: Golden, name: str, check: Check) -> None:
    """The analytic model of the fact sheet."""
    described = {one["key"]: one for one in folder.json("sampler.json")["unipc"]}[name]
    made = _schedule(described["steps"], described["seq_len_for_mu"])
    solver = Recorded(made.sigmas, UniPc(made.sigmas, described["variant"]))

    def predict(x: Tensor, step: int, timestep: float) -> Tensor:
        t = float(made.sigmas[step])
        clean = 0.6 * torch.tanh(1.3 * x) * (1 - 0.5 * t) + 0.2 * math.sin(3 * t) + 0.1 * x
        return (x - clean) / t

    result = denoise(file.given(f"{name}.x_init"), made, predict, solver=solver)
    check.tensor(file, f"{name}.sigmas", torch.from_numpy(made.sigmas), SIGMA_ATOL)
    check.tensor(file, f"{name}.x", torch.stack(solver.latents), TOY_ATOL)
    check.tensor(file, f"{name}.denoised", torch.stack(solver.clean), TOY_ATOL)
    check.tensor(file, f"{name}.result", result, TOY_ATOL)


def _call(folder: Folder, file: Golden, name: str, check: Check) -> None:
    """A whole call: guided or not, of a fixed shift or the rule's, from noise or from latents partly noised."""
    calls = config(folder)["sample_calls"]
    described = calls["common"] | calls[name.removeprefix(_CALL)]
    noise, schedule = file.given(f"{name}.noise")[0], _call_schedule(file, name, described)
    if f"{name}.initial_latent" in file:
        first = described["strength"]
        sigmas = schedule.sigmas * np.float32(first)
        schedule = replace(schedule, sigmas=sigmas, timesteps=sigmas[:-1] * np.float32(1000))
        noise = file.given(f"{name}.initial_latent")[0] * (1 - first) + noise * first
    scale, rescale = described.get("real_guidance_scale", 1.0), described.get("guidance_rescale", 0.0)
    call = Call(folder, file, noise, file.given("sample_inputs.latent_indices")[0], guided=scale > 1)
    solver = Recorded(schedule.sigmas, UniPc(schedule.sigmas))
    with torch.inference_mode():
        result = denoise(noise, schedule, lambda x, _, t: combine(call.predict(x, t), scale, rescale), solver=solver)
    check.tensor(file, f"{name}.denoised", torch.stack(solver.clean)[:, None], CALL_ATOL)
    check.tensor(file, f"{name}.result", result[None], CALL_ATOL)


def _call_schedule(file: Golden, name: str, described: dict[str, Any]) -> Schedule:
    frames, height, width = file.shape(f"{name}.noise")[2:]
    shift = described.get("shift") or shift_of_tokens(frames * height * width // 4)
    return make_schedule(described["steps"], shift, by_odds=True)


class Call:
    """The model with the stored inputs of a call, but for its noise and the places ``times`` of its window."""

    def __init__(self, folder: Folder, file: Golden, noise: Tensor, times: Tensor, *, guided: bool = False) -> None:
        def given(part: str) -> Tensor:
            return file.given(f"sample_inputs.{part}")[0]

        self._runner = denoiser(folder)
        self._frames = noise.shape[1]
        told = embedded(config(folder)["sample_calls"]["common"]["distilled_guidance_scale"], torch.float32)
        self.branches = []
        with torch.inference_mode():
            sight = self._runner.model.image_projection(given("image_embeddings"))
            past = shown(file, "sample_inputs.", 0)
            self._stream, self._tokens_at = self._runner.packed(torch.zeros_like(noise), times.tolist(), past)
            for prefix in ("negative_", "") if guided else ("",):
                parts = (given(f"{prefix}prompt_{part}") for part in ("embeds", "embeds_mask", "poolers"))
                branch = self._runner._branch(trimmed(*parts), guidance=told)
                branch.sight = sight
                self.branches.append(branch)

    def predict(self, latents: Tensor, timestep: float) -> list[Tensor]:
        """Velocities, [negative, positive] or the positive alone."""
        tokens = self._tokens_at(latents)
        made = (self._runner.velocity(tokens, branch, timestep, self._stream) for branch in self.branches)
        return [velocity[:, -self._frames :] for velocity in made]


def _tea(folder: Folder, file: Golden, name: str, check: Check) -> None:
    """A call without TeaCache, and one with each threshold: which calls ran the blocks, what added up, the result."""
    stored, noise = folder.json("sampler.json")[name], file.given(f"{name}.noise")[0]
    check.equal("poly", list(POLYNOMIAL), stored["poly"])
    schedule = _call_schedule(file, name, config(folder)[name])
    runs: list[dict[str, Any]] = [{"threshold": 0.0}, *stored["runs"]]
    for number, run in enumerate(runs, start=-1):
        call, sums = Call(folder, file, noise, file.given(f"{name}.latent_indices")[0]), list[float]()
        (branch,) = call.branches
        if run["threshold"]:
            branch.tea = TeaCache(run["threshold"], schedule.steps, Solo())

        def predict(x: Tensor, _: int, timestep: float, call: Call = call, sums: list[float] = sums) -> Tensor:
            (velocity,) = call.predict(x, timestep)
            sums.append(call.branches[0].tea.accumulated if call.branches[0].tea else 0.0)
            return velocity

        with torch.inference_mode():
            made = denoise(noise, schedule, predict, solver=UniPc(schedule.sigmas))[None]
        if branch.tea is None:
            check.tensor(file, f"{name}.result_without_cache", made, CALL_ATOL)
            continue
        check.equal(f"threshold {run['threshold']} calc", list(map(int, branch.tea.ran)), run["calc"])
        check.close("accumulated", torch.tensor(sums), torch.tensor(run["accumulated_after"]), TEA_ATOL)
        check.tensor(file, f"{name}_{number}.result", made, TEA_ATOL)
