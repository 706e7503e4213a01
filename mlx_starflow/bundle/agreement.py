"""Whether the configurations of a bundle's components fit together."""

from __future__ import annotations

from typing import Any

from ..config import ClipConfig, FlowConfig, ModelConfig
from ..errors import ConfigError


def check_together(model: ModelConfig, flow: FlowConfig) -> None:
    """Raise a ConfigError if a bundle's config.json and its flow's contradict each other."""
    text = model.text
    if model.model_type != flow.model_type:
        raise ConfigError(
            f"config.json: model_type is {model.model_type!r}, but that of the flow is "
            f"{flow.model_type!r}."
        )
    if flow.text_channels and text is None:
        raise ConfigError("config.json: 'text' is missing, but the flow was trained with text.")
    if (
        text is not None
        and flow.text_channels
        and (text.length, text.channels)
        != (
            flow.text_length,
            flow.text_channels,
        )
    ):
        raise ConfigError(
            f"config.json: text has {text.length} tokens of {text.channels} numbers, but the "
            f"flow was trained with {flow.text_length} of {flow.text_channels}."
        )
    if flow.frames > 1 and model.clips is None:
        raise ConfigError("config.json: 'clips' is missing, and the flow was trained on clips.")
    if "vae" not in model.components and flow.in_channels not in (1, 3):
        raise ConfigError(
            f"flow/config.json: in_channels is {flow.in_channels}; a model without a VAE makes "
            "pixels and needs 1 or 3."
        )


def check_autoencoder(vae: Any, flow: FlowConfig, clips: ClipConfig | None = None) -> None:
    """Raise a ConfigError if the configuration of an autoencoder does not fit the flow or its
    clips."""
    steps = getattr(vae, "temporal_factor", None)
    if clips is not None and steps != clips.temporal_factor:
        raise ConfigError(
            f"The flow's clips have {clips.temporal_factor} frames per latent frame, and the "
            f"autoencoder has {steps or 'none: it is one of pictures'}."
        )
    if vae.latent_channels != flow.in_channels:
        raise ConfigError(
            f"vae/config.json: latent_channels is {vae.latent_channels}, but in_channels of the "
            f"flow is {flow.in_channels}."
        )
    pixels = getattr(vae, "out_channels", 3)
    if pixels not in (1, 3):
        raise ConfigError(f"vae/config.json: out_channels is {pixels}; expected 1 or 3.")
