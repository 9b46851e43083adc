"""The transformer: outputs and every stored activation. One case is a batch of samples, each with its own indices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from gamecraft_core.families.framepack import Shown
from tests.parity.cases import rope
from tests.parity.cases.dit import padded
from tests.parity.cases.framepack.models import denoiser
from tests.parity.cases.hunyuan.dit import ATOL, trimmed
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

STEM = "transformer_tiny_io"
_HISTORY = (("clean_latents_4x", 4), ("clean_latents_2x", 2), ("clean_latents", 1))
#: Names of tensors that need no comparison.
INPUTS = (
    r"\w+\.(?:hidden_states|timestep|encoder_\w+|pooled_projections|guidance|image_embeddings|latent_indices|"
    r"clean_latent\w*)"
)


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for name in sorted({name.split(".")[0] for name in file.names()}):
        yield Case(name, partial(_outputs, folder, file, name))
        yield Case(f"{name}.kept", partial(_kept, folder, file, name))
        if file.names(f"{name}.act."):
            yield Case(f"{name}.act", partial(_activations, folder, file, name))


def shown(file: Golden, prefix: str, row: int) -> list[Shown]:
    """The history stored under ``prefix`` in the order of packing; nothing where there is none."""
    found: list[Shown] = []
    for name, side in _HISTORY:
        if f"{prefix}{name}" in file:
            places = f"{prefix}{name.replace('latents', 'latent')}_indices"
            latents = file.given(f"{prefix}{name}")[row].numpy()
            found.append((latents, file.given(places)[row].tolist(), side))
    return found


class Sample:
    """One batch row of a case."""

    def __init__(self, folder: Folder, file: Golden, name: str, row: int) -> None:
        self._runner = runner = denoiser(folder)

        def given(part: str) -> Tensor:
            return file.given(f"{name}.{part}")[row]

        self._video, self._timestep = given("hidden_states"), float(given("timestep"))
        text = trimmed(given("encoder_hidden_states"), given("encoder_attention_mask"), given("pooled_projections"))
        self._branch = runner._branch(text, guidance=float(given("guidance")))
        with torch.inference_mode():
            self._branch.sight = runner.model.image_projection(given("image_embeddings"))
        self._times = given("latent_indices").tolist()
        self._shown = shown(file, f"{name}.", row)
        self.seen: dict[str, Tensor] = {"image_projection": self._branch.sight}

    def predict(self, *, every_row: bool) -> Tensor:
        """The velocity; ``seen`` has the activations under their stored names."""
        with torch.inference_mode():
            stream, tokens_at = self._runner.packed(
                torch.zeros_like(self._video), self._times, self._shown, every_row=every_row
            )
            self.seen["rope_cos"], self.seen["rope_sin"] = rope.as_stored(stream.rope)
            told = self._runner.model.final_layer.linear.register_forward_pre_hook(self._projected)
            try:
                tokens = tokens_at(self._video)
                return self._runner.velocity(tokens, self._branch, self._timestep, stream, self._observe)
            finally:
                told.remove()

    def _projected(self, layer: torch.nn.Module, given: tuple[Tensor]) -> None:
        self.seen["norm_out"] = given[0].clone()

    def _observe(self, name: str, value: Tensor) -> None:
        if name == "img_embed":
            self.seen["packed_tokens"] = value.clone()
        elif name == "vec":
            self.seen["temb"] = value.clone()
        elif name == "txt_embed":
            self.seen["context_embedder"] = value[len(self.seen["image_projection"]) :].clone()
        elif block := re.fullmatch(r"(double|single)_blocks\.(\d+)(?:\.(img|txt))?", name):
            kind, number, part = block.groups()
            rows = len(self.seen["packed_tokens"]) if kind == "single" else len(value)
            self.seen[f"{kind}_{number}_{part or 'img'}"] = value[:rows].clone()


def _each(folder: Folder, file: Golden, name: str, of: Callable[[Sample], Tensor]) -> Tensor:
    rows = len(file.given(f"{name}.hidden_states"))
    return torch.stack([of(Sample(folder, file, name, row)) for row in range(rows)])


def _outputs(folder: Folder, file: Golden, name: str, check: Check) -> None:
    made = _each(folder, file, name, lambda sample: sample.predict(every_row=True))
    check.tensor(file, f"{name}.out", made, ATOL)


def _kept(folder: Folder, file: Golden, name: str, check: Check) -> None:
    """As a run predicts: the last block makes the window's rows alone."""
    made = _each(folder, file, name, lambda sample: sample.predict(every_row=False))
    check.close("window rows alone", made, file.expected(f"{name}.out"), ATOL)


def _activations(folder: Folder, file: Golden, name: str, check: Check) -> None:
    """Every stored activation; a name that is not made here stays uncompared. Text is padded at its end with zeros."""
    samples = [Sample(folder, file, name, row) for row in range(len(file.given(f"{name}.hidden_states")))]
    for one in samples:
        one.predict(every_row=True)
    for part in samples[0].seen:
        stored = f"{name}.act.{part}"
        if stored in file:
            rows = file.shape(stored)[1]
            check.tensor(file, stored, torch.stack([padded(one.seen[part], rows) for one in samples]), ATOL)
