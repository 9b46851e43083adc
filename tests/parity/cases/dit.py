"""The transformer: outputs, activations, cached steps, kept rows, rotary tables. One case is a batch of samples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from gamecraft_core.base.messages import TextStates
from gamecraft_core.dit.rope import rope_table
from gamecraft_core.families.gamecraft import GameCraftDenoiser
from gamecraft_core.families.plucker import round_to_bf16
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.timeline.camera import action_rows
from gamecraft_core.timeline.frames import CHUNK_FRAMES, SPATIAL_RATIO, clip_latents
from tests.parity.cases import camera, rope
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden
from tests.parity.models import dit_fields, filled_dit, preset

ATOL = 2e-5
#: Names of tensors that need no comparison.
INPUTS = r"sd\..*|cam|cam_uncond_frame|\w+(?:\.cached)?\.(?:t|x|text_states|text_states_2|text_mask)"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for case in file.header["cases"]:
        name = case["name"]
        if f"{name}.out" in file:
            yield Case(name, partial(_outputs, file, case))
            yield Case(f"{name}.kept", partial(_kept, file, case))
        if file.names(f"{name}.mid."):
            yield Case(f"{name}.mid", partial(_activations, file, case))
        if f"{name}.cached.out" in file:
            yield Case(f"{name}.cached", partial(_cached, file, case))
    for name in file.names("cam"):
        if "action" in file.header.get("cam", {}):
            yield Case(name, partial(_camera, file, name))
    for name in sorted({name.rsplit(".", 1)[0] for name in file.names("freqs")}):
        yield Case(name, partial(_tables, file, name))


@cache
def denoiser(file: Golden, dtype: torch.dtype = torch.float32) -> GameCraftDenoiser:
    settings = preset(dit=dit_fields(file.header["config"]))
    return GameCraftDenoiser(settings, filled_dit(settings, file.state_dict(), dtype), Solo(), step_cache=True)


def _pixel_frames(file: Golden) -> int:
    return file.shape("cam")[1] if "cam" in file else CHUNK_FRAMES[0]


def _maps(file: Golden, *, moving: bool) -> Tensor:
    """The camera that the header describes, [frames, 6, H, W] rounded to bf16; one frame of one that stands still."""
    size = [side * SPATIAL_RATIO for side in file.header["latent_hw"]]
    if not moving:
        return round_to_bf16(camera.still_map(*size)[None])
    frames, described = _pixel_frames(file), file.header["cam"]
    return round_to_bf16(camera.maps(action_rows(described["action"], described["speed"], frames), frames, *size))


def _camera(file: Golden, name: str, check: Check) -> None:
    check.tensor(file, name, _maps(file, moving=name == "cam")[None], 0.0)


@cache
def camera_tokens(file: Golden, *, moving: bool) -> Tensor:
    """Tokens of the conditional camera, or of the unconditional one: one latent frame, repeated."""
    name = "cam" if moving else "cam_uncond_frame"
    maps = file.given(name)[0] if name in file else _maps(file, moving=moving)
    tokens: Tensor = denoiser(file).model.camera_net(maps)
    return tokens if moving else tokens.repeat(clip_latents(_pixel_frames(file)), 1)


class Sample:
    """One batch row of a case, ready to be predicted."""

    def __init__(
        self,
        file: Golden,
        case: dict[str, Any],
        row: int,
        *,
        keep: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        name = case["name"]
        stored = file.given(f"{name}.x")
        self._latents = stored[row if len(stored) > 1 else 0]
        frames, height, width = stored.shape[2:]
        self.real_tokens = int(file.given(f"{name}.text_mask")[row].sum())
        self._runner = denoiser(file, dtype)
        self.stream = self._runner.stream((frames, height, width), keep)
        moving = case["cam"] == "cond" or (case["cam"] == "both" and row > 0)
        text = TextStates(
            states=file.given(f"{name}.text_states")[row, : self.real_tokens].numpy(),
            pooled=file.given(f"{name}.text_states_2")[row].numpy(),
        )
        self.branch = self._runner.branch(text, camera_tokens(file, moving=moving), self.stream)
        self.seen: dict[str, Tensor] = {}

    def predict(self, timestep: Tensor, *, reuse: bool = False) -> Tensor:
        """The velocity; a cached step gets zeros for latents, which must not matter."""
        latents = torch.zeros_like(self._latents) if reuse else self._latents
        with torch.inference_mode():
            return self._runner.predict(
                latents, self.branch, float(timestep), self.stream, reuse=reuse, observe=self._observe
            )

    def _observe(self, name: str, value: Tensor) -> None:
        self.seen[name] = value.clone()


def predicted(file: Golden, case: dict[str, Any], **options: Any) -> list[tuple[Sample, Tensor]]:
    """Every row of the case with its prediction at the stored timestep."""
    times = file.given(f"{case['name']}.t")
    samples = [Sample(file, case, row, **options) for row in range(len(times))]
    return [(sample, sample.predict(times[row])) for row, sample in enumerate(samples)]


def _outputs(file: Golden, case: dict[str, Any], check: Check) -> None:
    outputs = [output for _, output in predicted(file, case)]
    check.tensor(file, f"{case['name']}.out", torch.stack(outputs), ATOL)


def _kept(file: Golden, case: dict[str, Any], check: Check) -> None:
    """Predicting the new frames alone changes none of them, and leaves the others zero."""
    history = file.shape(f"{case['name']}.x")[2] - clip_latents(_pixel_frames(file))
    outputs = torch.stack([output for _, output in predicted(file, case, keep=history)])
    expected = file.expected(f"{case['name']}.out").clone()
    expected[:, :, :history] = 0
    check.close("new frames alone", outputs, expected, ATOL)


def _cached(file: Golden, case: dict[str, Any], check: Check) -> None:
    name = f"{case['name']}.cached"
    times = file.given(f"{name}.t")
    outputs = [sample.predict(times[row], reuse=True) for row, (sample, _) in enumerate(predicted(file, case))]
    check.tensor(file, f"{name}.out", torch.stack(outputs), ATOL)


def _activations(file: Golden, case: dict[str, Any], check: Check) -> None:
    """Every stored ``mid`` tensor, under its stored name; a name that is not made here stays uncompared."""
    prefix = f"{case['name']}.mid."
    samples = [sample for sample, _ in predicted(file, case)]
    made = [_under_stored_names(file, sample) for sample in samples]
    for name in made[0]:
        if prefix + name in file:
            rows = file.shape(prefix + name)[1]
            check.tensor(file, prefix + name, torch.stack([padded(one[name], rows) for one in made]), ATOL)
    check.tensor(file, f"{prefix}cu_seqlens", _borders(samples, file.shape(f"{case['name']}.text_mask")[1]), 0.0)


def _under_stored_names(file: Golden, sample: Sample) -> dict[str, Tensor]:
    config, seen = file.header["config"], sample.seen
    last_double, last_single = config["depth_double_blocks"] - 1, config["depth_single_blocks"] - 1
    camera = sample.branch.added
    assert camera is not None
    history = len(camera) - len(camera_tokens(file, moving=True))
    calls = [camera[:history], camera[history:]][0 if history else 1 :]
    made = {name: seen[name] for name in ("time_in", "vector_in", "vec", "img_in", "img_embed", "txt_embed")}
    made |= {f"camera_net_call{index}": tokens for index, tokens in enumerate(calls)}
    for kind in ("img", "txt"):
        made[f"double_first.{kind}"] = seen[f"double_blocks.0.{kind}"]
        made[f"double_last.{kind}"] = seen[f"double_blocks.{last_double}.{kind}"]
    made["single_first"] = seen["single_blocks.0"]
    made["single_last_in"] = seen["single_last_in"]
    made["single_last"] = seen[f"single_blocks.{last_single}"]
    return made


def padded(value: Tensor, rows: int) -> Tensor:
    """Rows of padded text are not computed here and stored as zero there."""
    if value.dim() == 1:
        return value
    return torch.cat([value, value.new_zeros(rows - len(value), value.shape[1])])


def _borders(samples: list[Sample], text_length: int) -> Tensor:
    """Attention segments say what trimming assumes: video with real text, then padding."""
    borders = [0]
    for sample in samples:
        video = sample.stream.shard.total
        borders += [borders[-1] + video + sample.real_tokens, borders[-1] + video + text_length]
    return torch.tensor(borders)


def _tables(file: Golden, name: str, check: Check) -> None:
    config = file.header["config"]
    sides = (size // part for size, part in zip(file.header["latent_hw"], config["patch_size"][1:], strict=True))
    grid = (int(name.removeprefix("freqs")), *sides)
    cos, sin = rope.as_stored(rope_table(grid, tuple(config["rope_dim_list"]), config["rope_theta"]))
    check.tensor(file, f"{name}.cos", cos, rope.ATOL)
    check.tensor(file, f"{name}.sin", sin, rope.ATOL)
