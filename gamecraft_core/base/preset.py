"""A preset: one named configuration of a family, its sizes, its weights and its sampling defaults.

Config is data: strict models (unknown keys are errors), read from YAML by ``jobs``, stored resolved with the run.
Field names of ``dit`` and ``vae`` are those of the published configuration files.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gamecraft_core.base.family import family_of
from gamecraft_core.base.spec import Layout

_REWRITE_REQUEST = (
    "Rewrite this description of a video as one paragraph of plain English. Keep every subject, action and wish of the"
    " original and add none that contradicts it; name the main subject first, then what moves and how, the"
    " surroundings, light and mood, and the camera. Answer with the paragraph only.\n\nDescription: {prompt}"
)


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DitConfig(Strict):
    """Sizes of the diffusion transformer."""

    hidden_size: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    depth_double_blocks: int = Field(ge=1)
    depth_single_blocks: int = Field(ge=1)
    rope_dim_list: tuple[int, int, int]
    rope_theta: float = 256.0
    mlp_width_ratio: float = 4.0
    in_channels: int = 16
    out_channels: int = 16
    patch_size: tuple[int, int, int] = (1, 2, 2)
    text_states_dim: int = Field(gt=0)
    text_states_dim_2: int = Field(gt=0)
    camera_in_channels: int = 6
    camera_down_coef: int = 8
    #: The model is told its guidance: one pass does what guidance took two for.
    guidance_embed: bool = False
    #: Width of the image encoder's states that the model is given beside the prompt; 0: it is given none.
    image_dim: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _heads_fit(self) -> DitConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if sum(self.rope_dim_list) != self.head_dim or any(d % 2 for d in self.rope_dim_list):
            raise ValueError(f"rope_dim_list {self.rope_dim_list} must be even and sum to head_dim {self.head_dim}")
        return self

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


class VaeConfig(Strict):
    """Sizes of the causal 3D VAE, and whether it tiles (the released pipeline always does)."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    block_out_channels: tuple[int, ...]
    layers_per_block: int = 2
    norm_num_groups: int = 32
    sample_size: int = 256
    sample_tsize: int = 64
    scaling_factor: float = 0.476986
    time_compression_ratio: Literal[1, 4, 8] = 4
    spatial_compression_ratio: Literal[8] = 8
    mid_block_add_attention: bool = True
    mid_block_causal_attn: bool = True
    tiling: bool = True


class TextConfig(Strict):
    """Where the two text encoders live and how a prompt becomes states."""

    llm: str
    clip: str
    template: str = "gamecraft"
    crop_start: int = 95
    max_tokens: int = 256
    #: The template of a video of one frame, "" where a family makes none, and the tokens it takes before the prompt.
    image_template: str = ""
    image_crop_start: int = 36
    skip_layers: int = 2
    #: Folder of a causal language model, of any kind, that writes prompts anew before they are encoded.
    rewrite: str | None = None
    #: What it is asked, with {prompt} where the prompt goes, and how many tokens its answer has at most.
    rewrite_request: str = _REWRITE_REQUEST
    rewrite_tokens: int = Field(default=256, ge=1, le=4096)

    @field_validator("rewrite_request")
    @classmethod
    def _holds_the_prompt(cls, request: str) -> str:
        if "{prompt}" not in request:
            raise ValueError("rewrite_request must hold {prompt} where the prompt goes")
        return request


class VisionConfig(Strict):
    """Where the image encoder lives, for families that are told what an image shows: a folder of SigLIP's layout.

    ``random``: of these sizes, with seeded weights, for tests and demos.
    """

    path: str | None = None
    random: dict[str, int | float | str] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> VisionConfig:
        if (self.path is None) == (self.random is None):
            raise ValueError("vision needs either path (a folder) or random (an encoder's sizes)")
        return self

    def __hash__(self) -> int:
        """A preset is a key of what is made for it; a dict is none."""
        return hash(self.model_dump_json())


class WeightsConfig(Strict):
    """``random``: seeded draws, for tests and demos; ``files``: the published or our own layout at ``dit``/``vae``."""

    kind: Literal["random", "files"] = "files"
    seed: int = 0
    dit: str | None = None
    vae: str | None = None

    @model_validator(mode="after")
    def _files_named(self) -> WeightsConfig:
        if self.kind == "files" and not (self.dit and self.vae):
            raise ValueError("weights.kind 'files' needs weights.dit and weights.vae (a local path or an s3:// URI)")
        return self


class SamplingConfig(Strict):
    """Defaults of a session; a manifest row may override each."""

    steps: int = Field(ge=1, le=1000)
    guidance: float = Field(ge=1.0, le=30.0)
    shift: float = Field(gt=0.0, le=100.0)
    #: ``tokens``: a row that gives no shift takes FramePack's for its size (see ``timeline/schedule.py``).
    shift_rule: Literal["fixed", "tokens"] = "fixed"
    #: For models with ``dit.guidance_embed``; ``guidance`` above 1 comes on top, at the cost of a second pass.
    embedded_guidance: float = Field(default=6.0, ge=0.0, le=100.0)
    #: How far guidance's result is brought back to the spread of the conditional prediction.
    guidance_rescale: float = Field(default=0.0, ge=0.0, le=1.0)
    #: Off only to try the published switch: no released model is meant to run so.
    flow_reverse: bool = True
    #: Approximate (see ``dit/tea_cache.py``): blocks run again when the input has changed by so much; 0: at every step.
    tea_cache: float = Field(default=0.0, ge=0.0, le=10.0)
    negative_prompt: str = ""
    seed: int = Field(default=0, ge=0, lt=2**63)


class VideoConfig(Strict):
    """Pixel size, frame rate and chunk length."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    fps: int = Field(default=25, ge=1, le=120)
    #: New frames a chunk. Of a family that makes a whole video at once, all of them; of FramePack, 4 a latent frame.
    chunk_frames: int = 33
    #: Chunks of a session that does not say how long it is to be, where chunks take no actions.
    chunks: int = Field(default=1, ge=1)
    layout: Layout = "tiled"
    #: Where a row gives no size, that of FramePack's buckets of this resolution which is nearest to the image's shape.
    bucket: int | None = Field(default=None, gt=0, multiple_of=16)
    max_pixels: int = Field(default=2_200_000, gt=0)
    #: A chunk in which every frame is of one colour fails its session: a model that works does not make it.
    refuse_constant: bool = True


class ControlConfig(Strict):
    """Legal speeds (units a chunk for moves, degrees a chunk for rotations) and those taken when none is given."""

    speed_min: float = 0.0
    speed_max: float = 3.0
    rotation_speed_max: float = 3.0
    default_speed: float = 0.2
    #: Of rotations; without it they take ``default_speed`` too.
    default_rotation_speed: float | None = None

    def default_for(self, action: str) -> float:
        """The speed of an action that names none."""
        of_turns = self.default_rotation_speed if action.endswith("_rot") else None
        return self.default_speed if of_turns is None else of_turns

    def most_for(self, action: str) -> float:
        """The strongest legal speed of an action."""
        return self.rotation_speed_max if action.endswith("_rot") else self.speed_max


class RuntimeConfig(Strict):
    """Precision and threads. Threads are fixed here, never taken from the machine, so that results repeat."""

    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    vae_dtype: Literal["float32", "bfloat16", "float16"] = "float16"
    text_dtype: Literal["float32", "bfloat16", "float16"] = "float16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1)
    #: ``sage`` is approximate (see ``attention/sage.py``); ``auto`` never takes it.
    attention: Literal["auto", "sdpa", "flash", "sage"] = "auto"
    #: Approximate: e4m3 weights and matmuls in the blocks (see ``weights/quantise.py``), on GPUs that have fp8 units.
    fp8: bool = False
    #: What of the transformer stays in host memory: the blocks' modulation weights, which are read once a prompt and
    #: schedule, or the whole blocks, each brought to the GPU one ahead of its turn. Results are the same bits.
    offload: Literal["none", "modulation", "blocks"] = "none"
    #: Compile the transformer's blocks with torch.compile: a slower first chunk, and last bits may differ.
    compile: bool = False
    #: Tiles of one shape that the VAE runs at once, in as many times the memory. Last bits may differ.
    vae_tile_batch: int = Field(default=1, ge=1)


class Preset(Strict):
    """One named configuration; see the files in ``jobs/presets``."""

    name: str
    #: One of ``base/family.py``, or MODULE:NAME of a Family of your own.
    family: str
    description: str = ""
    dit: DitConfig
    vae: VaeConfig
    text: TextConfig
    weights: WeightsConfig
    sampling: SamplingConfig
    video: VideoConfig
    control: ControlConfig = ControlConfig()
    vision: VisionConfig | None = None
    runtime: RuntimeConfig = RuntimeConfig()

    @field_validator("family")
    @classmethod
    def _known(cls, name: str) -> str:
        return family_of(name).name
