"""WAN2.2 autoencoders: the published ``Wan2.2_VAE.pth`` and diffusers' AutoencoderKLWan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mlx_starflow.device.typed import parameters_of
from mlx_starflow.errors import ConfigError, WeightsError
from mlx_starflow.files.fields import Fields
from mlx_starflow.vae import AutoencoderWan, WanConfig

from ..read.sources import Checkpoint
from ..read.tensor_file import FLOATS, SourceTensor
from ..write.storing import Store

CLASS = "AutoencoderKLWan"  # name of the class in diffusers
# Mean and standard deviation of the 48 latent channels, published separately from the .pth.
_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813,
    0.0891, 0.157, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108,
    -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123, -0.0313,
    -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.052, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944,
    0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.06, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip
# Settings of diffusers with which the network is that of WAN2.2; other values are refused.
_FIXED: dict[str, Any] = {
    "is_residual": True,
    "patch_size": 2,
    "num_res_blocks": 2,
    "in_channels": 12,
    "out_channels": 12,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "scale_factor_spatial": 16,
    "scale_factor_temporal": 4,
}
_WAN21 = "It may be the autoencoder of WAN2.1, which is a different network."

# Names in the .pth and in diffusers -> names in a bundle, tried in order.
_RULES = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"conv1\.(\w+)", r"quant_conv.\1"),
        (r"conv2\.(\w+)", r"post_quant_conv.\1"),
        (r"(en|de)coder\.conv1\.(\w+)", r"\1coder.conv_in.\2"),
        (r"(en|de)coder\.head\.0\.gamma", r"\1coder.norm_out.gamma"),
        (r"(en|de)coder\.head\.2\.(\w+)", r"\1coder.conv_out.\2"),
        (r"(en|de)coder\.middle\.0\.(.+)", r"\1coder.mid_block.resnets.0.\2"),
        (r"(en|de)coder\.middle\.2\.(.+)", r"\1coder.mid_block.resnets.1.\2"),
        (r"(en|de)coder\.middle\.1\.(.+)", r"\1coder.mid_block.attention.\2"),
        (r"encoder\.downsamples\.(\d)\.downsamples\.([01])\.(.+)",
         r"encoder.down_blocks.\1.resnets.\2.\3"),
        (r"encoder\.downsamples\.(\d)\.downsamples\.2\.(.+)",
         r"encoder.down_blocks.\1.downsampler.\2"),
        (r"decoder\.upsamples\.(\d)\.upsamples\.([012])\.(.+)",
         r"decoder.up_blocks.\1.resnets.\2.\3"),
        (r"decoder\.upsamples\.(\d)\.upsamples\.3\.(.+)", r"decoder.up_blocks.\1.upsampler.\2"),
        (r"(.+)\.residual\.0\.gamma", r"\1.norm1.gamma"),
        (r"(.+)\.residual\.2\.(\w+)", r"\1.conv1.\2"),
        (r"(.+)\.residual\.3\.gamma", r"\1.norm2.gamma"),
        (r"(.+)\.residual\.6\.(\w+)", r"\1.conv2.\2"),
        (r"(.+)\.conv_shortcut\.(\w+)", r"\1.shortcut.\2"),
        (r"(.+)\.resample\.1\.(\w+)", r"\1.conv.\2"),
        (r"(.+)\.attentions\.0\.(.+)", r"\1.attention.\2"),
    )
]  # fmt: skip


def diffusers_config(data: dict[str, Any], where: str) -> WanConfig:
    """Configuration of a diffusers AutoencoderKLWan. Errors: ConfigError for another network."""
    for key, value in _FIXED.items():
        # diffusers omits settings with default values. Its defaults of is_residual and patch_size
        # are those of WAN2.1, so these two must be present.
        found = data.get(key, None if key in ("is_residual", "patch_size") else value)
        if found != value:
            raise ConfigError(f"{where}: {key} is {str(found)[:80]}; expected {value}. {_WAN21}")
    fields = Fields(data, where, ConfigError)
    return WanConfig.from_dict(
        {
            "base_dim": fields.whole("base_dim", 160),
            "decoder_base_dim": fields.whole("decoder_base_dim", 256),
            "latent_channels": fields.whole("z_dim", 48),
            "multiples": data.get("dim_mult", (1, 2, 4, 4)),
            "latents_mean": data.get("latents_mean", _MEAN),
            "latents_std": data.get("latents_std", _STD),
        },
        where,
    )


def checkpoint_config(checkpoint: Checkpoint) -> WanConfig:
    """Configuration of a ``Wan2.2_VAE.pth``, derived from the shapes of its tensors. Errors:
    ConfigError."""

    def axis(name: str, number: int) -> int:
        shape = checkpoint.tensors[name].shape if name in checkpoint.tensors else ()
        if len(shape) != 5:
            raise ConfigError(
                f"{checkpoint.path} is not a WAN2.2 autoencoder: {name!r} is missing or is not "
                f"5-dimensional. {_WAN21}"
            )
        return shape[number]

    axis("encoder.downsamples.0.downsamples.0.residual.2.weight", 0)  # WAN2.1 has no such name
    channels = axis("conv2.weight", 0)
    if channels != len(_MEAN):
        raise ConfigError(
            f"{checkpoint.path} has {channels} latent channels, but statistics are known only for "
            f"the {len(_MEAN)} of WAN2.2. Use the diffusers directory, whose config.json has them."
        )
    return WanConfig(
        base_dim=axis("encoder.conv1.weight", 0),
        decoder_base_dim=axis("decoder.head.2.weight", 1),
        latent_channels=channels,
        latents_mean=_MEAN,
        latents_std=_STD,
    )


def is_checkpoint(path: Path) -> bool:
    """Whether a path is the published file, or a directory that holds it."""
    return path.is_file() or (path / "Wan2.2_VAE.pth").is_file()


def wan_stores(checkpoint: Checkpoint, config: WanConfig) -> list[Store]:
    """The conversion of every tensor into the bundle, in float32.

    Errors: WeightsError that names a tensor that is missing, unexpected or has the wrong shape.
    """
    expected = dict(parameters_of(AutoencoderWan(config)))
    stores: dict[str, Store] = {}
    for name, tensor in checkpoint.tensors.items():
        target = target_name(name)
        if target not in expected or target in stores:
            raise WeightsError(
                f"{tensor.file.path}: the tensor {name!r} has no place in a WAN2.2 autoencoder."
            )
        stores[target] = _store(tensor, target, tuple(expected[target].shape))
    missing = next((name for name in expected if name not in stores), None)
    if missing is not None:
        raise WeightsError(
            f"{checkpoint.path}: the tensor that becomes {missing!r} is missing. Is the file "
            "complete?"
        )
    return list(stores.values())


def target_name(name: str) -> str:
    """The name of a tensor in a bundle, given its name in the .pth or in diffusers."""
    for pattern, replacement in _RULES:
        if match := pattern.fullmatch(name):
            name = match.expand(replacement)
    return name


def _store(tensor: SourceTensor, target: str, shape: tuple[int, ...]) -> Store:
    found: tuple[int, ...] = tensor.shape
    axes: tuple[int, ...] | None = None
    if len(found) == 5 and len(shape) == 4:  # (out, in, frame, row, column)
        out, inner, frames, rows, columns = found
        found, axes = (out, rows, columns, frames * inner), (0, 3, 4, 2, 1)
    elif len(found) == 5 and found[3:] == (1, 1):  # 1x1, over one or three frames
        found, axes = (found[0], found[2] * found[1]), (0, 3, 4, 2, 1)
    elif len(found) == 4 and len(shape) == 4:
        found, axes = (found[0], found[2], found[3], found[1]), (0, 2, 3, 1)
    elif found[1:] != shape[1:] and all(n == 1 for n in found[len(shape) :]):
        found = found[: len(shape)]  # gamma (C, 1, 1, 1), a 1x1 convolution (out, in, 1, 1)
    if found != shape or tensor.dtype not in FLOATS:
        raise WeightsError(
            f"{tensor.file.path}: {tensor.name!r} has shape {tensor.shape} and type "
            f"{tensor.dtype}; expected floats that can be converted to shape {shape}."
        )
    return Store(tensor, target, shape, "F32", axes=axes)
