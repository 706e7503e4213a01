"""VAEs: AutoencoderKL directories of diffusers."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from mlx_starflow.config import VAEConfig
from mlx_starflow.device.typed import parameters_of
from mlx_starflow.errors import ConfigError, WeightsError
from mlx_starflow.vae import AutoencoderKL

from ..read.settings_json import check_whole, read_settings_json
from ..read.sources import Checkpoint
from ..read.tensor_file import FLOATS, SourceTensor
from ..write.storing import Store

_FIELDS = (
    "block_out_channels",
    "latent_channels",
    "in_channels",
    "out_channels",
    "layers_per_block",
    "norm_num_groups",
    "scaling_factor",
    "mid_block_add_attention",
    "use_quant_conv",
    "use_post_quant_conv",
)
# Settings for which ``mlx_starflow.vae`` computes the same; other values are errors.
_FIXED = {
    "_class_name": ("AutoencoderKL",),
    "act_fn": ("silu",),
    "shift_factor": (None, 0, 0.0),
    "latents_mean": (None,),
    "latents_std": (None,),
}
_LARGEST = {
    "latent_channels": 4096,
    "in_channels": 4096,
    "out_channels": 4096,
    "layers_per_block": 64,
    "norm_num_groups": 4096,
}
_SWITCHES = ("mid_block_add_attention", "use_quant_conv", "use_post_quant_conv")
_BLOCK_TYPES = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def vae_config(directory: Path) -> VAEConfig:
    """The VAEConfig of a diffusers directory. Errors: ConfigError for unsupported settings."""
    path = directory / "config.json"
    data = read_settings_json(path)
    for key, allowed in _FIXED.items():
        if key in data and data[key] not in allowed:
            raise ConfigError(
                f"{path}: {key} is {str(data[key])[:80]!r}; only {allowed[0]!r} is supported."
            )
    for key, kind in _BLOCK_TYPES.items():
        kinds = data.get(key, [])
        if not isinstance(kinds, list) or any(k != kind for k in kinds):
            raise ConfigError(f"{path}: {key} has other types than {kind!r}; only it is supported.")
    if "block_out_channels" not in data:
        raise ConfigError(f"{path} has no 'block_out_channels', so it is not an AutoencoderKL.")
    _check_values(data, str(path))
    return VAEConfig.from_dict({k: data[k] for k in _FIELDS if k in data}, str(path))


def _check_values(data: dict[str, Any], where: str) -> None:
    check_whole(data, _LARGEST, where)
    widths = data["block_out_channels"]
    if not isinstance(widths, list) or not 1 <= len(widths) <= 8:
        raise ConfigError(f"{where}: block_out_channels must be a list of 1 to 8 widths.")
    groups = data.get("norm_num_groups", VAEConfig.norm_num_groups)
    for width in widths:
        check_whole({"block_out_channels": width}, {"block_out_channels": 1 << 16}, where)
        if width % groups:
            raise ConfigError(
                f"{where}: block_out_channels has the width {width}, which is not a multiple of "
                f"norm_num_groups ({groups})."
            )
    for key in _SWITCHES:
        if not isinstance(data.get(key, True), bool):
            raise ConfigError(f"{where}: {key} must be true or false.")
    scale = data.get("scaling_factor", 1.0)
    if type(scale) not in (int, float) or not 0 < scale < math.inf:
        raise ConfigError(f"{where}: scaling_factor must be a positive number.")


def vae_stores(checkpoint: Checkpoint, config: VAEConfig) -> list[Store]:
    """A ``Store`` for every tensor; the VAE is stored in float32, unquantized.

    Errors: WeightsError naming a tensor that is missing, unexpected or of the wrong shape.
    """
    expected = dict(parameters_of(AutoencoderKL(config)))
    stores = {}
    for name, tensor in checkpoint.tensors.items():
        target = _target_name(name)
        if target not in expected:
            raise WeightsError(
                f"{tensor.file.path}: the tensor {name!r} does not belong to this autoencoder."
            )
        stores[target] = _store(name, tensor, target, expected[target].shape)
    for name, array in expected.items():
        if name not in stores:
            raise WeightsError(
                f"{checkpoint.path}: the tensor {name!r} of shape {array.shape} is missing."
            )
    return list(stores.values())


def _target_name(name: str) -> str:
    """The current diffusers name of a tensor; in older checkpoints attention has other names."""
    match = re.fullmatch(r"(.+\.attentions\.\d+)\.(query|key|value|proj_attn)\.(\w+)", name)
    return f"{match[1]}.{_OLD_ATTENTION[match[2]]}.{match[3]}" if match else name


def _store(name: str, tensor: SourceTensor, target: str, shape: tuple[int, ...]) -> Store:
    found, convolution = tensor.shape, len(shape) == 4
    if len(found) == 4 and convolution:
        found = (found[0], found[2], found[3], found[1])
    elif len(found) == 4 and found[2:] == (1, 1):
        found = found[:2]  # attention stored as a 1x1 convolution
    if found != tuple(shape) or tensor.dtype not in FLOATS:
        raise WeightsError(
            f"{tensor.file.path}: {name!r} has shape {tensor.shape} and type {tensor.dtype}; the "
            f"configuration says {tuple(shape)} (channels last) and floats."
        )
    return Store(tensor, target, tuple(shape), "F32", axes=(0, 2, 3, 1) if convolution else None)
