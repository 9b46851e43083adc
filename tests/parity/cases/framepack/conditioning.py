"""What sections are conditioned by: the image cropped, encoded by SigLIP and by the VAE, and the prompt's states."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gamecraft_core.media.image import cover_crop
from tests.parity.cases.framepack.models import beside, sight_encoder, vae_codec
from tests.parity.cases.hunyuan import text, vae
from tests.parity.cases.start import with_noise
from tests.parity.check import Case, Check
from tests.parity.golden import Folder, Golden

SIGLIP_ATOL = 1e-5
#: Names of tensors that need no comparison.
INPUTS = r"image_uint8|start_latent_noise|llm_input_ids|llm_attention_mask|clip_input_ids"
_CROP = re.compile(r"cropped_(?:\d+x\d+_)?uint8")


def cases(folder: Folder, file: Golden) -> Iterator[Case]:
    for name in filter(_CROP.fullmatch, file.names()):
        yield Case(name.removesuffix("_uint8"), partial(_crop, file, name))
    yield Case("siglip", partial(_siglip, folder, file))
    yield Case("start_latent", partial(_start, folder, file))
    yield Case("text", partial(_text, folder, file))


def _crop(file: Golden, name: str, check: Check) -> None:
    """The name of one that is no square says width, then height."""
    height, width = file.shape(name)[:2]
    made = cover_crop(file.given("image_uint8").numpy(), height, width, "lanczos")
    check.tensor(file, name, torch.from_numpy(made), 0.0)


def _siglip(folder: Folder, file: Golden, check: Check) -> None:
    encoder, pixels = sight_encoder(folder), file.given("cropped_uint8").numpy()
    check.tensor(file, "siglip_pixel_values", encoder.pixel_values(pixels), SIGLIP_ATOL)
    states = torch.from_numpy(encoder.states(pixels))[None]
    check.tensor(file, "siglip_last_hidden_state", states, SIGLIP_ATOL)


def _start(folder: Folder, file: Golden, check: Check) -> None:
    """The posterior that the VAE gives, and the latent with the stored noise."""
    codec, pixels = vae_codec(folder), file.given("cropped_uint8").numpy()
    shown = torch.from_numpy(pixels).movedim(-1, 0)[None, :, None].float() / 127.5 - 1
    check.tensor(file, "image_pt", shown, SIGLIP_ATOL)
    mean, logvar = codec.moments(pixels[None])
    check.tensor(file, "start_latent_mean", mean[None], vae.ATOL)
    check.tensor(file, "start_latent_std", torch.exp(0.5 * logvar)[None], vae.ATOL)
    noise = file.given("start_latent_noise")
    made = with_noise(noise, "image_posterior", lambda: codec.encode_image(np.ascontiguousarray(pixels), seed=0))
    check.tensor(file, "start_latent", made, vae.ATOL)


def _text(folder: Folder, file: Golden, check: Check) -> None:
    """Cut to the real tokens: the padding that follows them upstream is never looked at."""
    models = beside(folder)
    ids, mask = file.given("llm_input_ids")[0], file.given("llm_attention_mask")[0]
    real = file.shape("llama_vec")[1]
    states: Tensor = text.encoded(models, ids, mask, int(mask.sum()) - real)[0][:real]
    check.tensor(file, "llama_vec", states[None], text.LLM_ATOL)
    pooled = text.pooled(models, file.given("clip_input_ids")[0])
    check.tensor(file, "clip_l_pooler", pooled[None], text.CLIP_ATOL)
