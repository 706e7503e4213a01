"""The configuration of a model: one frozen dataclass per component, each with a JSON form.

``to_dict`` writes what ``from_dict`` reads. A key that is unknown, missing, of the wrong type or
out of range is a ConfigError that names it. A bundle may come from anyone, so every number is
checked here before a module is built from it.
The names that PyTorch checkpoints use for these settings are translated in ``convert``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError
from .files.fields import shown
from .files.records import Record

FORMAT_VERSION = 1
COMPONENTS = ("flow", "vae", "text_encoder")
MAX_LAYERS = 1000  # of all blocks together
# Largest sizes that are accepted: modules are built from them before any weight file is checked.
MAX_WIDTH, MAX_SIDE, MAX_TEXT_NUMBERS = 1 << 16, 1 << 12, 1 << 26
MAX_FRAMES = 1 << 12  # latent frames of a clip

ASPECT_RATIOS = ("1:1", "2:3", "3:2", "16:9", "9:16", "4:5", "5:4", "21:9", "9:21")


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(repr(a) for a in allowed)
        raise ConfigError(f"{name} is {shown(value)}; expected one of {choices}.")


@dataclass(frozen=True)
class BlockConfig(Record):
    """One autoregressive affine block, or the learned denoiser's network (never flipped)."""

    _limits = {"layers": (0, MAX_LAYERS)}
    _sizes = {  # largest values in a block that has layers
        "channels": MAX_WIDTH,
        "heads": 1 << 12,
        "kv_heads": 1 << 12,
        "head_dim": 1 << 12,
        "mlp_channels": 1 << 20,
    }

    layers: int  # 0: the block is the identity and has no parameters
    channels: int  # width of the residual stream
    heads: int  # query heads
    kv_heads: int  # key and value heads, a divisor of heads
    head_dim: int  # numbers per head; heads * head_dim need not equal channels
    mlp_channels: int  # hidden width of the MLP
    norm: str = "layer_norm"  # "layer_norm" (eps 1e-5) | "rms_norm" (1 + weight, eps 1e-6)
    gated_mlp: bool = False  # down(gelu_tanh(gate x) * up x) instead of down(gelu(up x))
    bias: bool = True  # in qkv, proj and the MLP; proj_in, proj_out, proj_txt always have one
    qk_norm: bool = False  # RMSNorm on queries and keys before the rotation
    post_norm: bool = False  # RMSNorm on the output of attention and MLP
    final_norm: bool = False  # RMSNorm before proj_out
    position: str = "spatial"  # "spatial" | "sequence" (rotary) | "table" (learned, added)
    conditioned: bool = False  # text tokens stand before the image tokens
    project_text: bool = True  # False: the text already has the block's width
    flip: bool = False  # reads the tokens in reverse raster order
    local: bool = False  # reads every frame of a clip as a sequence of its own, as a picture

    def __post_init__(self) -> None:
        _one_of("norm", self.norm, ("layer_norm", "rms_norm"))
        _one_of("position", self.position, ("spatial", "sequence", "table"))
        self._check_limits()
        if self.local and self.conditioned:
            raise ConfigError("a local block reads one frame and no text; it is conditioned here.")
        if self.layers:
            for name, largest in self._sizes.items():
                value = getattr(self, name)
                if not 1 <= value <= largest:
                    raise ConfigError(
                        f"{name} is {shown(value)}; expected a number from 1 to {largest}."
                    )
            if self.heads % self.kv_heads:
                raise ConfigError(
                    f"heads is {self.heads}; expected a multiple of kv_heads ({self.kv_heads})."
                )
            if self.head_dim % 2:
                raise ConfigError(
                    f"head_dim is {self.head_dim}; expected an even number, since rotary "
                    "embeddings rotate pairs of channels."
                )


@dataclass(frozen=True)
class FlowConfig(Record):
    """A flow: blocks[0] is next to the data, blocks[-1] (the deep block) next to the noise."""

    _limits = {
        "in_channels": (1, 1 << 12),
        "patch_size": (1, 1 << 8),
        "grid_size": (1, MAX_SIDE),
        "noise_std": (0, 1e3),
        "text_channels": (0, MAX_WIDTH),
        "text_length": (0, MAX_WIDTH),
        "num_classes": (0, 1 << 20),
        "soft_clip": (0, 1e6),
        "frames": (1, MAX_FRAMES),
        "temporal_causal": (0, 2),
        "denoiser_window": (0, MAX_FRAMES),
        "rotary_size": (1, MAX_SIDE),
    }

    model_type: str  # "starflow" | "tarflow"
    in_channels: int  # C of the latent or image
    patch_size: int  # p; a token has p * p * C numbers
    grid_size: int  # side of the token grid the model was trained on
    blocks: tuple[BlockConfig, ...]
    noise_std: float  # standard deviation of the noise added to the data in training
    text_channels: int = 0  # width of the text features, 0 = a flow without text
    text_length: int = 0  # text tokens per prompt
    num_classes: int = 0  # TarFlow: size of the class embedding, 0 = none
    sos: bool = False  # inputs begin with a learned token; else outputs are shifted by one
    scale: str = "exp"  # sigma: "softplus" (of a + 0.5413) | "exp" | "unit" (volume-preserving)
    soft_clip: float = 0.0  # outputs become c * tanh(o / c); 0 = off
    mix_aspect: bool = False  # trained on several aspect ratios, not only on squares
    denoiser: BlockConfig | None = None  # learned denoiser; None: the score of the flow is used
    rotary_size: int | None = None  # P, the side that rotary positions are scaled to; None: grid's
    # For models of clips, in latent frames:
    frames: int = 1  # length of the training clips; 1 for a model of pictures
    temporal_causal: int = 0  # 0: a flip also reverses time, and the denoiser sees all frames;
    # else frames keep their order, and the denoiser sees temporal_causal - 1 frames ahead
    denoiser_window: int | None = None  # frames a token of the denoiser sees, less one; None: all

    def __post_init__(self) -> None:
        _one_of("model_type", self.model_type, ("starflow", "tarflow"))
        _one_of("scale", self.scale, ("softplus", "exp", "unit"))
        self._check_limits()
        if not self.blocks:
            raise ConfigError("blocks is empty; a flow needs at least one block.")
        layers = sum(block.layers for block in self.blocks)
        if len(self.blocks) > MAX_LAYERS or layers > MAX_LAYERS:
            raise ConfigError(f"blocks has {layers} layers; expected at most {MAX_LAYERS}.")
        if self.token_channels > MAX_WIDTH:
            raise ConfigError(
                f"patch_size is {self.patch_size} and in_channels {self.in_channels}: tokens of "
                f"{self.token_channels} numbers; expected at most {MAX_WIDTH}."
            )
        if self.text_channels * self.text_length > MAX_TEXT_NUMBERS:
            raise ConfigError(
                f"text_length ({self.text_length}) times text_channels ({self.text_channels}) is "
                f"more than {MAX_TEXT_NUMBERS}."
            )
        if bool(self.text_channels) != bool(self.text_length):
            raise ConfigError(
                f"text_channels is {self.text_channels} and text_length {self.text_length}; "
                "expected both to be 0 or neither."
            )
        if self.model_type == "tarflow" and self.text_channels:
            raise ConfigError("A TarFlow takes no text, but text_channels is not 0.")
        if self.frames > 1 and self.model_type == "tarflow":
            raise ConfigError(f"frames is {self.frames}; a TarFlow is a model of pictures.")
        if self.denoiser is not None and not self.denoiser.layers:
            raise ConfigError("denoiser has 0 layers; expected at least one.")
        for name, block in self._networks():
            plain = block.layers and block.conditioned and not block.project_text
            if plain and self.text_channels and block.channels != self.text_channels:
                raise ConfigError(
                    f"{name}: without project_text its channels ({block.channels}) must be "
                    f"text_channels ({self.text_channels})."
                )

    def _networks(self) -> list[tuple[str, BlockConfig]]:
        found = [(f"blocks[{i}]", block) for i, block in enumerate(self.blocks)]
        return found + ([("denoiser", self.denoiser)] if self.denoiser else [])

    @property
    def token_channels(self) -> int:
        """D, the numbers in one token."""
        return self.patch_size * self.patch_size * self.in_channels

    @property
    def position_size(self) -> int:
        """P of the rotary positions."""
        return self.grid_size if self.rotary_size is None else self.rotary_size


@dataclass(frozen=True)
class VAEConfig(Record):
    """An AutoencoderKL in the terms of diffusers' config.json."""

    _limits = {
        "block_out_channels": (1, MAX_WIDTH),
        "latent_channels": (1, 1 << 12),
        "in_channels": (1, 1 << 12),
        "out_channels": (1, 1 << 12),
        "layers_per_block": (1, 64),
        "norm_num_groups": (1, 1 << 12),
        "scaling_factor": (1e-9, 1e9),
    }

    block_out_channels: tuple[int, ...]
    latent_channels: int = 4
    in_channels: int = 3
    out_channels: int = 3
    layers_per_block: int = 2  # the decoder has one more
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.block_out_channels) <= 8:
            raise ConfigError(
                f"block_out_channels has {len(self.block_out_channels)} widths; expected 1 to 8."
            )
        self._check_limits()
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                raise ConfigError(
                    f"block_out_channels has the width {width}, which is not a multiple of "
                    f"norm_num_groups ({self.norm_num_groups})."
                )

    @property
    def factor(self) -> int:
        """Pixels per latent along one side."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class TextConfig(Record):
    """How prompts are turned into text features of shape (B, length, channels)."""

    _limits = {"length": (1, MAX_WIDTH), "channels": (1, 1 << 20), "noise_level": (0, 1e3)}

    encoder: str  # "labels", or a kind of mlx_starflow.text.registry: "t5", "gemma", ...
    length: int  # tokens; shorter prompts are padded, longer ones cut
    channels: int  # width of the features
    masked: bool = True  # padding features are set to zero
    chat_template: bool = False  # the Gemma user/model turn around the prompt
    fps: bool = False  # "An image:\n{text}\n"
    noise_level: float | None = None  # "Noise Level {int(1000 sigma)}:\n{text}"
    aspect_ratio: bool = False  # "{text}\n in a {w:h} aspect ratio.\n"
    labels: tuple[str, ...] = ()  # "labels" only: class names in the order of the rows

    def __post_init__(self) -> None:
        self._check_limits()
        if self.length * self.channels > MAX_TEXT_NUMBERS:
            raise ConfigError(
                f"length ({self.length}) times channels ({self.channels}) is more than "
                f"{MAX_TEXT_NUMBERS}."
            )


@dataclass(frozen=True)
class ClipConfig(Record):
    """The clips that a model was trained on, and how their frames become latent frames."""

    _limits = {
        "frames": (1, 1 << 14),
        "fps": (1, 1000),
        "window": (1, MAX_FRAMES),
        "temporal_factor": (1, 64),
        "temporal_scale": (1e-6, 1e6),
    }

    frames: int  # M of the training
    fps: tuple[int, ...] = (16,)  # frames per second of the training, the usual first
    window: int = 21  # latent frames that are sampled in one sequence; more are continued
    temporal_factor: int = 4  # frames per latent frame; the first has one to itself
    temporal_scale: float = 1.0  # multiplies latent frames after the first

    def __post_init__(self) -> None:
        if not self.fps:
            raise ConfigError("clips: fps is empty; expected a rate in frames per second.")
        self._check_limits()

    def latent_frames(self, frames: int) -> int:
        """Latent frames N of a clip of M frames; those after the last full step are cut."""
        return (frames - 1) // self.temporal_factor + 1

    def shown_frames(self, latent_frames: int) -> int:
        """Frames that N latent frames become."""
        return self.temporal_factor * (latent_frames - 1) + 1


@dataclass(frozen=True)
class SampleDefaults(Record):
    """Sampling settings of a model that are used where the caller gives none."""

    _limits = {"guidance": (0, 1e4), "tolerance": (1e-30, 1e6)}

    guidance: float = 3.6
    sampler: str = "auto"
    tolerance: float | None = None  # largest residual of a token; None: set by the precision
    denoise: bool = True

    def __post_init__(self) -> None:
        self._check_limits()


@dataclass(frozen=True)
class CodecConfig(Record):
    """How ``compress`` rounds the numbers of this model, see ``codec.weights``."""

    _limits = {"step_weights": (0.01, 100)}

    step_weights: tuple[float, ...]  # one for each number of a token

    def __post_init__(self) -> None:
        self._check_limits()


@dataclass(frozen=True)
class SourceConfig(Record):
    """Where converted weights came from."""

    name: str
    sha256: str = ""
    converter: str = ""  # name and version of the program that converted them


@dataclass(frozen=True)
class ModelConfig(Record):
    """DIR/config.json of a bundle."""

    _limits = {"image_size": (1, MAX_WIDTH)}

    model_type: str
    format_version: int = FORMAT_VERSION
    name: str = ""
    image_size: int = 256  # pixels along one side of a square picture
    text: TextConfig | None = None  # None: an unconditional or class-conditional TarFlow
    clips: ClipConfig | None = None  # None: a model of pictures
    defaults: SampleDefaults = field(default_factory=SampleDefaults)
    source: SourceConfig | None = None
    codec: CodecConfig | None = None
    licence: str = ""  # SPDX name or a sentence
    attribution: str = ""  # a sentence that copies must carry
    components: dict[str, str] = field(default_factory=dict)
    # components: "flow", "vae", "text_encoder" -> directory inside the bundle, or a hub
    # repository written "hub:owner/name". A model has no component that is not listed.

    def __post_init__(self) -> None:
        _one_of("model_type", self.model_type, ("starflow", "tarflow"))
        if self.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"format_version is {self.format_version}, this program reads {FORMAT_VERSION}. "
                "Update mlx-starflow, or convert the checkpoint again."
            )
        self._check_limits()
        for name, reference in self.components.items():
            if name not in COMPONENTS:
                raise ConfigError(
                    f"components has the key {shown(name)}; expected {', '.join(COMPONENTS)}."
                )
            if name == "flow" and reference.startswith("hub:"):
                raise ConfigError("components: flow must be a directory inside of the bundle.")
            if not is_reference(reference):
                raise ConfigError(
                    f"components: {name} is {shown(reference)}; expected a directory inside of "
                    "the bundle, or a hub repository, 'hub:owner/name'."
                )


def is_reference(reference: str) -> bool:
    """Whether a component's reference is a directory inside its bundle or a hub repository."""
    if reference.startswith("hub:"):
        return is_repository(reference.removeprefix("hub:"))
    parts = reference.split("/")
    return len(reference) <= 200 and all(re.fullmatch(r"\w[\w. -]*", p) for p in parts)


def is_repository(name: str) -> bool:
    """Whether a name has the form owner/name of a hub repository."""
    part = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
    return re.fullmatch(f"{part}/{part}", name) is not None and ".." not in name
