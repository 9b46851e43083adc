"""What FramePack's sections begin from: the start image's latents, and what SigLIP says of the image.

The encoder sees the very picture that the VAE sees, at its own square size. Of the encoder only what leads to the last
hidden states is built; they are taken after the final norm and are not pooled.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gamecraft_core.base.errors import Poisoned, UsageError
from gamecraft_core.base.messages import EncodeOrder, FloatArray, StartPayload
from gamecraft_core.base.preset import Preset
from gamecraft_core.media.image import Scaling
from gamecraft_core.vae.codec import Frames, VaeCodec
from gamecraft_core.weights.hub import fill_from_folder, read_config
from gamecraft_core.weights.random_init import fill_random
from gamecraft_core.weights.readers import local, pick_text

#: Where the encoder's keys begin, in the published files and in those that a recent transformers writes.
_PREFIXES = ("vision_model.", "")
_PARTS = ("embeddings.", "encoder.", "post_layernorm.")


class SightStarter:
    """A session's image, encoded twice; both are given to every section."""

    scaling: Scaling = "lanczos"

    def __init__(self, preset: Preset, codec: VaeCodec, device: torch.device) -> None:
        self._codec = codec
        self._encoder = SightEncoder(preset, device)

    def of_image(self, pixels: Frames, order: EncodeOrder) -> StartPayload:
        return StartPayload(self._codec.encode_image(pixels, order.seed), self._encoder.states(pixels))

    def of_clip(self, pixels: Frames, order: EncodeOrder) -> StartPayload:
        raise ValueError("this family begins from an image")


class SightEncoder:
    """SigLIP's vision model on one device."""

    def __init__(self, preset: Preset, device: torch.device) -> None:
        self._device = device
        self._model, self._side = build_siglip(preset, device)

    @torch.inference_mode()
    def states(self, pixels: Frames) -> FloatArray:
        """What an image [H, W, 3] shows, [tokens, width]."""
        states = self._model(pixel_values=self.pixel_values(pixels)).last_hidden_state[0].float().cpu().numpy()
        if not np.isfinite(states).all():
            raise Poisoned("the image encoder's states are not finite", remedy="check the weights and text_dtype")
        return np.ascontiguousarray(states)

    def pixel_values(self, pixels: Frames) -> Tensor:
        """[1, 3, side, side] in -1..1: bicubic, whatever shape the image has."""
        from PIL import Image

        square = Image.fromarray(pixels).resize((self._side, self._side), Image.Resampling.BICUBIC)
        values = (np.asarray(square, np.float32) / 255 - 0.5) / 0.5
        dtype = next(self._model.parameters()).dtype
        return torch.from_numpy(values).permute(2, 0, 1)[None].to(self._device, dtype)


def build_siglip(preset: Preset, device: torch.device) -> tuple[nn.Module, int]:
    """The vision model that the preset names, and the side of the square images it takes."""
    from transformers.models.siglip.configuration_siglip import SiglipVisionConfig
    from transformers.models.siglip.modeling_siglip import SiglipVisionModel

    vision = preset.vision
    if vision is None:
        raise UsageError(f"{preset.name} names no image encoder", field="vision.path", remedy="name SigLIP's folder")
    folder = None if vision.path is None else local(vision.path, "vision.path", pick_text)
    sizes = vision.random if folder is None else read_config(folder, "vision.path", "vision_config")
    config = SiglipVisionConfig(**{**(sizes or {}), "vision_use_head": False})
    side = config.image_size
    if not isinstance(side, int):
        raise UsageError(f"the image encoder takes images of {side}", field="vision", remedy="name one of square ones")
    if config.hidden_size != preset.dit.image_dim:
        raise UsageError(
            f"the image encoder's states are {config.hidden_size} wide, the transformer takes {preset.dit.image_dim}",
            field="vision",
            remedy="name the encoder that belongs to the transformer",
        )
    with torch.device("meta"):
        model: nn.Module = SiglipVisionModel(config)
    places = model.get_parameter("embeddings.position_embedding.weight").shape[0]
    model.get_submodule("embeddings").register_buffer("position_ids", torch.arange(places)[None], persistent=False)
    if folder is None:
        fill_random(model.to(getattr(torch, preset.runtime.text_dtype)), preset.weights.seed)
    else:
        fill_from_folder(preset, folder, model, "vision.path", _PREFIXES, "embeddings.patch_embedding.weight", _is_read)
    return model.to(device), side


def _is_read(key: str) -> bool:
    return key.startswith(_PARTS) and not key.endswith(".position_ids")
