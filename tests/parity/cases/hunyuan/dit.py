"""The transformer: outputs and every stored activation. One case is a batch of samples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from gamecraft_core.base.messages import TextStates
from gamecraft_core.dit.rope import rope_table
from tests.parity.cases import rope
from tests.parity.cases.dit import padded
from tests.parity.cases.hunyuan.models import denoiser, dit_sizes
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

ATOL = 2e-5
STEM = "dit_tiny_io"
#: Names of tensors that need no comparison.
INPUTS = r"\w+\.(?:x|t|text_states|text_states_2|text_mask|guidance)"


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for name in sorted({name.split(".")[0] for name in file.names()}):
        yield Case(name, partial(_outputs, folder, file, name))
        yield Case(f"{name}.kept", partial(_kept, folder, file, name))
        if file.names(f"{name}.act."):
            yield Case(f"{name}.act", partial(_activations, folder, file, name))
        if f"{name}.freqs_cos" in file:
            grid = _grid(folder, file.shape(f"{name}.x")[2:])
            yield Case(f"{name}.freqs", partial(tables, folder, file, f"{name}.", grid))


def tables(folder: Folder, file: Golden, prefix: str, grid: tuple[int, int, int], check: Check) -> None:
    """The rotary tables of a token ``grid``, stored as cosines and sines."""
    sizes = dit_sizes(folder)
    cos, sin = rope.as_stored(rope_table(grid, tuple(sizes["rope_dim_list"]), sizes["rope_theta"]))
    check.tensor(file, f"{prefix}freqs_cos", cos, rope.ATOL)
    check.tensor(file, f"{prefix}freqs_sin", sin, rope.ATOL)


def trimmed(states: Tensor, mask: Tensor, pooled: Tensor) -> TextStates:
    """The real tokens of one stored prompt."""
    return TextStates(states=states[: int(mask.sum())].numpy(), pooled=pooled.numpy())


class Sample:
    """One batch row of a case."""

    def __init__(self, folder: Folder, file: Golden, name: str, row: int) -> None:
        self._runner = denoiser(folder)
        given = {part: file.given(f"{name}.{part}")[row] for part in ("x", "t", "text_states", "text_mask", "guidance")}
        self._video, self._timestep = given["x"], float(given["t"])
        text = trimmed(given["text_states"], given["text_mask"], file.given(f"{name}.text_states_2")[row])
        self.branch = self._runner._branch(text, guidance=float(given["guidance"]))
        self.seen: dict[str, Tensor] = {}

    def predict(self, keep: int | None = None) -> Tensor:
        frames, height, width = self._video.shape[1:]
        stream = self._runner.stream((frames, height, width), keep)
        with torch.inference_mode():
            return self._runner.predict(self._video, self.branch, self._timestep, stream, observe=self._observe)

    def refiner_condition(self) -> Tensor:
        with torch.inference_mode():
            made = self._runner.model.txt_in.conditions(self.branch.prompt.states, torch.tensor([self._timestep]))
        condition: Tensor = made[0]
        return condition

    def _observe(self, name: str, value: Tensor) -> None:
        self.seen[name] = value.clone()


def _samples(folder: Folder, file: Golden, name: str) -> list[Sample]:
    return [Sample(folder, file, name, row) for row in range(len(file.given(f"{name}.x")))]


def _outputs(folder: Folder, file: Golden, name: str, check: Check) -> None:
    check.tensor(file, f"{name}.out", torch.stack([one.predict() for one in _samples(folder, file, name)]), ATOL)


def _kept(folder: Folder, file: Golden, name: str, check: Check) -> None:
    """As a run predicts: without the text's rows in the last block."""
    outputs = torch.stack([one.predict(keep=0) for one in _samples(folder, file, name)])
    check.close("video rows alone", outputs, file.expected(f"{name}.out"), ATOL)


def _activations(folder: Folder, file: Golden, name: str, check: Check) -> None:
    """Every stored activation; a name that is not made here stays uncompared."""
    samples = _samples(folder, file, name)
    for one in samples:
        one.predict()
    made = [_under_stored_names(one) for one in samples]
    for part in made[0]:
        stored = f"{name}.act.{part}"
        if stored in file:
            rows = file.shape(stored)[1]
            check.tensor(file, stored, torch.stack([padded(one[part], rows) for one in made]), ATOL)


def _under_stored_names(sample: Sample) -> dict[str, Tensor]:
    made = {"refiner_c": sample.refiner_condition(), "txt_in": sample.seen["txt_embed"]}
    for name, value in sample.seen.items():
        block = re.fullmatch(r"(double|single)_blocks\.(\d+)(?:\.(img|txt))?", name)
        made["_".join(filter(None, block.groups())) if block else name] = value
    return made


def _grid(folder: Folder, latents: torch.Size) -> tuple[int, int, int]:
    t, h, w = (size // part for size, part in zip(latents, dit_sizes(folder)["patch_size"], strict=True))
    return t, h, w
