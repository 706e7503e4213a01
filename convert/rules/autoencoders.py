"""Determine the kind of an autoencoder in a file or directory."""

from __future__ import annotations

from pathlib import Path

from mlx_starflow.config import VAEConfig
from mlx_starflow.vae import WanConfig

from ..read.settings_json import read_settings_json
from ..read.sources import Checkpoint, open_checkpoint
from ..write.storing import Store
from .vae import vae_config, vae_stores
from .wan_vae import CLASS, checkpoint_config, diffusers_config, is_checkpoint, wan_stores

AutoencoderConfig = VAEConfig | WanConfig


def open_autoencoder(path: Path) -> tuple[Checkpoint, AutoencoderConfig]:
    """Weights and configuration of a diffusers directory or a ``Wan2.2_VAE.pth``. The caller must
    close the weights. Errors: ConfigError, CheckpointError."""
    config = path / "config.json"
    if not is_checkpoint(path) or config.is_file():
        data = read_settings_json(config)
        wan = data.get("_class_name") == CLASS
        own = diffusers_config(data, str(config)) if wan else vae_config(path)
        return open_checkpoint(path), own
    file = path if path.is_file() else path / "Wan2.2_VAE.pth"
    checkpoint = open_checkpoint(file)
    try:
        return checkpoint, checkpoint_config(checkpoint)
    except BaseException:
        checkpoint.close()
        raise


def autoencoder_stores(checkpoint: Checkpoint, config: AutoencoderConfig) -> list[Store]:
    """The conversion of every tensor into the bundle. Errors: WeightsError."""
    if isinstance(config, WanConfig):
        return wan_stores(checkpoint, config)
    return vae_stores(checkpoint, config)
