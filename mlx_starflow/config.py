"""What a model is: frozen dataclasses, one per component, each with a JSON form.

``to_dict`` writes what ``from_dict`` reads; an unknown or missing key is an error that names it.
Nothing here knows how a checkpoint of another framework is spelled: see ``convert``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import ConfigError

FORMAT_VERSION = 1
C = TypeVar("C", bound="_Config")

ASPECT_RATIOS = ("1:1", "2:3", "3:2", "16:9", "9:16", "4:5", "5:4", "21:9", "9:21")


class _Config:
    """JSON form of a frozen dataclass; nested configurations are given in ``_nested``."""

    _nested: dict[str, type[_Config]] = {}

    @classmethod
    def from_dict(cls: type[C], data: dict[str, Any], where: str = "config.json") -> C:
        if not isinstance(data, dict):
            raise ConfigError(f"{where}: expected an object of settings, found {data!r}.")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - set(fields))
        if unknown:
            raise ConfigError(
                f"{where}: unknown key {unknown[0]!r}. Known keys: {', '.join(fields)}. "
                "Was this bundle written by a newer version?"
            )
        values = {}
        for name, value in data.items():
            nested = cls._nested.get(name)
            if nested is not None and value is not None:
                if isinstance(value, list):
                    value = tuple(
                        nested.from_dict(v, f"{where}: {name}[{i}]") for i, v in enumerate(value)
                    )
                else:
                    value = nested.from_dict(value, f"{where}: {name}")
            elif isinstance(value, list):
                value = tuple(value)
            values[name] = value
        for name, f in fields.items():
            required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            if required and name not in values:
                raise ConfigError(f"{where}: key {name!r} is missing.")
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"{where}: a value has the wrong type ({error}).") from error

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # tuples become JSON lists when written


def _one_of(name: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        choices = ", ".join(repr(a) for a in allowed)
        raise ConfigError(f"{name} is {value!r}; expected one of {choices}.")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{name} is {value!r}; expected a positive number.")


@dataclass(frozen=True)
class BlockConfig(_Config):
    """One autoregressive affine block, or the learned denoiser's network (never flipped)."""

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

    def __post_init__(self) -> None:
        _one_of("norm", self.norm, ("layer_norm", "rms_norm"))
        _one_of("position", self.position, ("spatial", "sequence", "table"))
        if self.layers:
            _positive(channels=self.channels, heads=self.heads, kv_heads=self.kv_heads)
            _positive(head_dim=self.head_dim, mlp_channels=self.mlp_channels)
            if self.heads % self.kv_heads:
                raise ConfigError(
                    f"heads is {self.heads}, which {self.kv_heads} kv_heads do not divide."
                )
            if self.head_dim % 2:
                raise ConfigError(f"head_dim is {self.head_dim}; rotary pairs need it even.")


@dataclass(frozen=True)
class FlowConfig(_Config):
    """A flow: blocks[0] is next to the data, blocks[-1] (the deep block) next to the noise."""

    _nested = {"blocks": BlockConfig, "denoiser": BlockConfig}

    model_type: str  # "starflow" | "tarflow"
    in_channels: int  # C of the latent or image
    patch_size: int  # p; a token has p * p * C numbers
    grid_size: int  # P: side of the token grid the model was trained on
    blocks: tuple[BlockConfig, ...]
    noise_std: float  # standard deviation of the noise added to the data in training
    text_channels: int = 0  # width of the text features, 0 = a flow without text
    text_length: int = 0  # text tokens per prompt
    num_classes: int = 0  # TarFlow: size of the class embedding, 0 = none
    sos: bool = False  # inputs begin with a learned token; else outputs are shifted by one
    scale: str = "exp"  # sigma: "softplus" (of a + 0.5413) | "exp" | "unit" (volume-preserving)
    soft_clip: float = 0.0  # outputs become c * tanh(o / c); 0 = off
    mix_aspect: bool = False  # trained on several aspect ratios, not only on squares
    denoiser: BlockConfig | None = None  # learned denoiser, else the score is used

    def __post_init__(self) -> None:
        _one_of("model_type", self.model_type, ("starflow", "tarflow"))
        _one_of("scale", self.scale, ("softplus", "exp", "unit"))
        _positive(
            in_channels=self.in_channels, patch_size=self.patch_size, grid_size=self.grid_size
        )
        if not self.blocks:
            raise ConfigError("blocks is empty; a flow needs at least one block.")
        if self.noise_std < 0 or self.soft_clip < 0:
            raise ConfigError("noise_std and soft_clip must not be negative.")

    @property
    def token_channels(self) -> int:
        """D, the numbers in one token."""
        return self.patch_size * self.patch_size * self.in_channels


@dataclass(frozen=True)
class VAEConfig(_Config):
    """An AutoencoderKL in the terms of diffusers' config.json."""

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

    @property
    def factor(self) -> int:
        """Pixels per latent along one side."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class TextConfig(_Config):
    """How a prompt becomes features (B, length, channels)."""

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
        _positive(length=self.length, channels=self.channels)


@dataclass(frozen=True)
class SampleDefaults(_Config):
    """What generate does when it is not told otherwise."""

    guidance: float = 3.6
    sampler: str = "auto"
    tolerance: float | None = None  # largest error of a token; None: what the precision allows
    denoise: bool = True


@dataclass(frozen=True)
class SourceConfig(_Config):
    """Where converted weights came from."""

    name: str
    sha256: str = ""
    converter: str = ""  # name and version of the program that converted them


@dataclass(frozen=True)
class ModelConfig(_Config):
    """DIR/config.json of a bundle."""

    _nested = {"text": TextConfig, "defaults": SampleDefaults, "source": SourceConfig}

    model_type: str
    format_version: int = FORMAT_VERSION
    name: str = ""
    image_size: int = 256  # pixels along one side of a square picture
    text: TextConfig | None = None  # None: an unconditional or class-conditional TarFlow
    defaults: SampleDefaults = field(default_factory=SampleDefaults)
    source: SourceConfig | None = None
    licence: str = ""  # SPDX name or a sentence
    attribution: str = ""  # a sentence that copies must carry
    components: dict[str, str] = field(default_factory=dict)
    # components: "flow", "vae", "text_encoder" -> directory inside the bundle, or a hub
    # repository written "hub:owner/name"; an absent one is absent from the model.

    def __post_init__(self) -> None:
        _one_of("model_type", self.model_type, ("starflow", "tarflow"))
        if self.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"format_version is {self.format_version}, this program reads {FORMAT_VERSION}. "
                "Update mlx-starflow, or convert the checkpoint again."
            )
