"""Finds the family of a checkpoint and its settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

from mlx_starflow.errors import ConfigError

from ..options import ConvertOptions
from ..read.published_yaml import Settings, read_settings, settings_from
from ..read.sources import Checkpoint
from ..read.tensor_file import SourceTensor
from .architecture import Architecture, contradiction
from .autoencoders import AutoencoderConfig
from .starflow import starflow_architecture
from .starflow_text import read_labels
from .tarflow import is_tarflow, named_shape, tarflow_architecture


def read_architecture(
    options: ConvertOptions, checkpoint: Checkpoint, vae: AutoencoderConfig | None
) -> Architecture:
    """The architecture of a checkpoint. ``vae``: the configuration of the given VAE, if there is
    one. Errors: ConfigError, WeightsError."""
    where, tensors = str(checkpoint.path), checkpoint.tensors
    if not any(name.startswith("blocks.") for name in tensors):
        held = ", ".join(sorted(tensors)[:3])
        raise ConfigError(
            f"{where} is not a STARFlow or TarFlow checkpoint: no tensor's name begins with "
            f"'blocks.' (it has {held[:200]})."
        )
    path = _yaml(options, tensors)
    if path is None and options.settings is None:
        return _tarflow(options, checkpoint, vae, where)
    classes = next((n for n in tensors if n.endswith(".class_embed")), None)
    if classes is not None:
        raise ConfigError(
            f"{where} is a TarFlow checkpoint (it has {classes!r}), but "
            f"{path or 'the settings'} is for a STARFlow. Leave --config out."
        )
    if path is not None:
        settings = read_settings(path, options.ignore_keys)
    else:
        given = cast(dict[str, Any], options.settings)
        settings = settings_from(given, where, options.ignore_keys)
    settings = _with_noise(settings, options.noise_std)
    folders = [p.parent for p in (path, checkpoint.path) if p is not None]
    labels = read_labels(settings, folders)
    factor = vae.factor if vae else None
    result = starflow_architecture(tensors, settings, where, factor, labels)
    if vae is not None and vae.latent_channels != result.flow.in_channels:
        raise contradiction(
            settings.where,
            "channel_size",
            result.flow.in_channels,
            f"latent_channels is {vae.latent_channels}",
            "the VAE's config.json",
        )
    return result


def _tarflow(
    options: ConvertOptions, checkpoint: Checkpoint, vae: AutoencoderConfig | None, where: str
) -> Architecture:
    if not is_tarflow(checkpoint.tensors):
        raise ConfigError(
            f"{where} needs the YAML file published beside it: pass --config MODEL.yaml."
        )
    for flag, given in (("--vae", vae), ("--text-encoder", options.text_encoder)):
        if given is not None:
            raise ConfigError(
                f"{where} is a TarFlow, which models pixels and takes no text: leave {flag} out."
            )
    return tarflow_architecture(
        checkpoint.tensors, options.checkpoint.name, options.noise_std, where
    )


def _yaml(options: ConvertOptions, tensors: dict[str, SourceTensor]) -> Path | None:
    """The path of --config, else of the only YAML file beside the checkpoint, or None."""
    if options.config is not None:
        if not options.config.is_file():
            raise ConfigError(f"--config {options.config} is not a file.")
        return options.config
    if options.settings is not None:
        return None
    folder = options.checkpoint if options.checkpoint.is_dir() else options.checkpoint.parent
    named = [options.checkpoint.with_suffix(s) for s in (".yaml", ".yml")]
    beside = [p for p in named if p.is_file()]
    if not beside and named_shape(options.checkpoint.name) is None:
        beside = sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    if is_tarflow(tensors) and any(n.endswith(".class_embed") for n in tensors):
        return None
    if len(beside) > 1:
        names = ", ".join(p.name for p in beside[:10])
        raise ConfigError(f"{folder} has several YAML files ({names}). Pass one as --config.")
    return beside[0] if beside else None


def _with_noise(settings: Settings, given: float | None) -> Settings:
    if given is None or given == settings.noise_std:
        return settings
    if "noise_std" in settings.given:
        raise ConfigError(
            f"--noise-std is {given}, but {settings.where} says {settings.noise_std}. "
            "Leave the flag out, or correct the file."
        )
    return dataclasses.replace(settings, noise_std=given)
