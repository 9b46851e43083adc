"""Whole runs: noise in; every section's latents, what it is shown, and the pixels that the sections settle out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.base.messages import DenoiseOrder, FloatArray, StartPayload, TextPayload, TextStates
from gamecraft_core.base.spec import Layout
from gamecraft_core.families.framepack_paint import SectionPainter
from gamecraft_core.timeline.frames import SPATIAL_RATIO
from gamecraft_core.timeline.schedule import shift_of_tokens
from gamecraft_core.timeline.sections import carry, clean_inputs, section_count, video_tokens
from gamecraft_core.timeline.spans import span
from tests.parity.cases.framepack.models import beside, config, denoiser, settings, sight_encoder, vae_codec
from tests.parity.cases.framepack.tables import LAYOUTS, Video, section_places
from tests.parity.cases.hunyuan import text
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

LATENT_ATOL, PIXEL_ATOL = 5e-4, 5e-4
#: Names of tensors that need no comparison.
INPUTS = r"\w+\.(?:sec\d+\.noise|frame_ids)"
_DEMOS = {"demo_gradio": "standard", "demo_gradio_f1": "F1"}
#: Of the first section's pixels every so many frames are stored.
_STEPS = (5, 3, 1, 2, 4)


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for name in sorted({name.split(".")[0] for name in file.names()}):
        run = Run.of(folder, file, name)
        yield Case(f"{name}.table", partial(_table, run))
        yield Case(f"{name}.shown", partial(_shown, run))
        yield Case(f"{name}.latents", partial(_latents, run))
        yield Case(f"{name}.pixels", partial(_pixels, run))


@dataclass(frozen=True, eq=False)
class Run:
    """One stored run. The product's own sections, each after the payload of the one before, are made once."""

    folder: Folder
    file: Golden
    name: str
    described: dict[str, Any]

    @staticmethod
    def of(folder: Folder, file: Golden, name: str) -> Run:
        return Run(folder, file, name, config(folder)["runs"][name])

    @property
    def layout(self) -> Layout:
        return LAYOUTS[_DEMOS[self.described["demo"]]]

    @property
    def window(self) -> int:
        window: int = self.described["latent_window_size"]
        return window

    @property
    def sections(self) -> int:
        return section_count(self.described["total_second_length"], 4 * self.window, self.described["fps"])

    @property
    def start(self) -> FloatArray:
        start: FloatArray = self.file.given(f"{self.name}.history_latents")[0, :, :1].numpy()
        return start

    def stored(self, index: int, part: str) -> Tensor:
        return self.file.given(f"{self.name}.sec{index}.{part}")[0]

    def span(self, index: int) -> tuple[int, int]:
        return span(self.layout, 4 * self.window, self.sections, index)

    def order(self, index: int) -> DenoiseOrder:
        height, width = self.described["height"], self.described["width"]
        tokens = video_tokens(self.window, height // SPATIAL_RATIO, width // SPATIAL_RATIO)[-1]
        return DenoiseOrder(
            session_id="golden",
            index=index,
            control=None,
            seed=0,
            steps=self.described["steps"],
            guidance=self.described["cfg"],
            shift=shift_of_tokens(tokens),
            height=height,
            width=width,
            chunk_frames=4 * self.window,
            chunks=self.sections,
            embedded_guidance=self.described["distilled_guidance_scale"],
            guidance_rescale=self.described["rescale"],
        )

    @cache  # noqa: B019 - as long as the goldens are open
    def payloads(self) -> list[FloatArray]:
        runner, made = denoiser(self.folder, self.layout), list[FloatArray]()
        sight, prompts = shown_and_said(self.folder)
        start = StartPayload(self.start, sight)
        for index in range(self.sections):
            noise, history = self.stored(index, "noise").numpy(), made[-1] if made else None
            made.append(runner.denoise(self.order(index), prompts, history, start, noise=noise))
        return made

    def painter(self) -> SectionPainter:
        chosen = settings(self.folder, self.layout)
        video = chosen.video.model_copy(update={"chunk_frames": 4 * self.window})
        return SectionPainter(chosen.model_copy(update={"video": video}), vae_codec(self.folder))


@cache
def shown_and_said(folder: Folder) -> tuple[FloatArray, TextPayload]:
    """What the image shows and what the prompt says, made of the stored image and ids."""
    stored, models = folder.golden("conditioning"), beside(folder)
    ids, mask, words = (stored.given(name)[0] for name in ("llm_input_ids", "llm_attention_mask", "clip_input_ids"))
    real = stored.shape("llama_vec")[1]
    states, _ = text.encoded(models, ids, mask, int(mask.sum()) - real)
    prompt = TextStates(states[:real].numpy(), text.pooled(models, words).numpy())
    return sight_encoder(folder).states(stored.given("cropped_uint8").numpy()), TextPayload(prompt)


def _table(run: Run, check: Check) -> None:
    """What the demo told of every section."""
    check.equal("sections", run.sections, run.described["sections"])
    check.equal("frames", 4 * run.window * run.sections + 1, run.described["final_frames"])
    video = Video(run.layout, run.window, run.sections)
    for index, stored in enumerate(run.described["per_section"]):
        made = section_places(video, index)
        for name in stored:
            check.equal(f"section {index} {name}", made[name], stored[name])


def _shown(run: Run, check: Check) -> None:
    """The clean inputs of section 1, of stored latents."""
    new, start = run.stored(0, "generated").numpy(), run.start
    shown = clean_inputs(
        run.layout, run.window, 1, run.sections, carry(run.layout, run.window, None, new, start), start
    )
    parts = {"clean_latents": shown.near, "clean_latents_2x": shown.middle, "clean_latents_4x": shown.far}
    for name, made in parts.items():
        check.tensor(run.file, f"{run.name}.sec1.{name}", torch.from_numpy(made)[None], 0.0)


def _latents(run: Run, check: Check) -> None:
    painter = run.painter()
    made = [torch.from_numpy(painter.newest(payload))[None] for payload in run.payloads()]
    for index, latents in enumerate(made):
        check.tensor(run.file, f"{run.name}.sec{index}.generated", latents, LATENT_ATOL)
    in_time = made if run.layout == "forward" else made[::-1]
    whole = torch.cat([torch.from_numpy(run.start)[None], *in_time], dim=2)
    check.tensor(run.file, f"{run.name}.history_latents", whole, LATENT_ATOL)


def _pixels(run: Run, check: Check) -> None:
    """The video as sections settle it, and the first section's decode before anything fades."""
    painter, payloads = run.painter(), run.payloads()
    settled = {
        run.span(index): painter.pixels(index, run.sections, payload, run.start)
        for index, payload in enumerate(payloads)
    }
    video = torch.cat([pixels for _, pixels in sorted(settled.items()) if pixels is not None], dim=1)
    check.equal("frames", video.shape[1], run.described["final_frames"])
    check.tensor(run.file, f"{run.name}.pixels", video[None, :, run.file.given(f"{run.name}.frame_ids")], PIXEL_ATOL)
    name = f"{run.name}.first_section_pixels"
    if name in run.file:
        alone = run.layout == "inverted" and run.sections > 1
        first = painter.newest(payloads[0])
        whole = vae_codec(run.folder).pixels(first if alone else np.concatenate([run.start, first], axis=1))
        stored = run.file.shape(name)[2]
        step = next(step for step in _STEPS if len(range(0, whole.shape[1], step)) == stored)
        check.tensor(run.file, name, whole[None, :, ::step], PIXEL_ATOL)
