"""Tiny models with random weights on disk, for tests of everything around the numbers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from families import random_flow
from mlx.utils import tree_flatten

from mlx_starflow.bundle.load import write_component, write_json
from mlx_starflow.config import (
    BlockConfig,
    ClipConfig,
    FlowConfig,
    ModelConfig,
    SampleDefaults,
    TextConfig,
)
from mlx_starflow.vae import AutoencoderWan, WanConfig

COLOURS = ("red", "green", "blue", "yellow")


def _block(**changes) -> BlockConfig:
    plain = dict(layers=1, channels=32, heads=1, kv_heads=1, head_dim=32, mlp_channels=64)
    return BlockConfig(**(plain | changes))


def write_bundle(
    directory: Path, flow: FlowConfig, text: TextConfig | None, name: str, factor: int = 1
) -> Path:
    """The bundle of a flow alone; a VAE beside it makes pictures ``factor`` times as large."""
    config = ModelConfig(
        model_type=flow.model_type,
        name=name,
        image_size=flow.grid_size * flow.patch_size * factor,
        text=text,
        defaults=SampleDefaults(guidance=1.5),
        components={"flow": "flow"},
    )
    weights = dict(tree_flatten(random_flow(flow).parameters()))
    # Gentle scales: noise far from a picture's must not overflow either.
    weights = {k: v * 0.3 if ".proj_out." in k else v for k, v in weights.items()}
    write_component(directory / "flow", flow.to_dict(), weights)
    write_json(directory / "config.json", config.to_dict())
    return directory


def colours_bundle(
    directory: Path,
    channels: int = 32,
    grid_size: int = 6,
    heads: int = 1,
    denoiser: bool = False,
) -> Path:
    """A STARFlow of pixels whose text is one of four colours; several aspect ratios."""
    text = TextConfig("labels", length=1, channels=len(COLOURS) + 1, labels=COLOURS)
    size = dict(channels=channels, head_dim=channels, mlp_channels=2 * channels)
    size |= dict(heads=heads, kv_heads=heads)
    flow = FlowConfig(
        model_type="starflow",
        in_channels=3,
        patch_size=2,
        grid_size=grid_size,
        blocks=(
            _block(**size, flip=True),
            _block(**size),
            _block(**size, conditioned=True, layers=2, flip=True),
        ),
        noise_std=0.2,
        text_channels=text.channels,
        text_length=1,
        sos=True,
        scale="softplus",
        soft_clip=4.0,
        mix_aspect=True,
        denoiser=_block(**size, final_norm=True) if denoiser else None,
    )
    return write_bundle(directory, flow, text, "colours")


def classes_bundle(directory: Path, num_classes: int = 5) -> Path:
    """A TarFlow of grey pixels, with classes or (0) without."""
    table = dict(position="table", conditioned=num_classes > 0)
    flow = FlowConfig(
        model_type="tarflow",
        in_channels=1,
        patch_size=2,
        grid_size=4,
        blocks=(_block(**table), _block(**table, flip=True)),
        noise_std=0.1,
        num_classes=num_classes,
    )
    return write_bundle(directory, flow, None, "classes")


def sentences_bundle(directory: Path, reference: Path) -> Path:
    """Pictures of 32 x 32 pixels from a sentence, much quicker than those of the reference model,
    whose VAE and text encoder these are: the flow has 16 tokens and random weights."""
    text = TextConfig("t5", length=12, channels=32)
    flow = FlowConfig(
        model_type="starflow",
        in_channels=4,
        patch_size=1,
        grid_size=4,
        blocks=(_block(flip=True), _block(conditioned=True)),
        noise_std=0.3,
        text_channels=text.channels,
        text_length=text.length,
        sos=True,
        scale="softplus",
        soft_clip=4.0,
    )
    write_bundle(directory, flow, text, "sentences", factor=8)
    for component in ("vae", "text_encoder"):
        shutil.copytree(reference / component, directory / component)
    config = json.loads((directory / "config.json").read_text())
    config["components"] = {name: name for name in ("flow", "vae", "text_encoder")}
    write_json(directory / "config.json", config)
    return directory


def clips_bundle(
    directory: Path,
    reference: Path | None = None,
    window: int = 3,
    denoiser_window: int = 1,
    grid_size: int = 2,
    noise_level: float | None = None,
    layers: int = 1,
) -> Path:
    """A STARFlow of clips over a WAN2.2 autoencoder, whose text is one of four colours: 9 frames
    of 32 x 32 pixels in several aspect ratios, 3 latent frames in a window. ``reference``: the
    bundle whose T5 reads sentences instead, with this ``noise_level`` in its template. ``layers``:
    of the deep block."""
    local = _block(local=True)
    if reference is None:
        text = TextConfig("labels", length=1, channels=len(COLOURS) + 1, labels=COLOURS, fps=True)
    else:
        text = TextConfig("t5", length=12, channels=32, fps=True, noise_level=noise_level)
    deep = _block(channels=64, heads=2, kv_heads=2, conditioned=True, mlp_channels=64, flip=True)
    deep = dataclasses.replace(deep, layers=layers)
    flow = FlowConfig(
        model_type="starflow",
        in_channels=3,
        patch_size=1,
        grid_size=grid_size,
        blocks=(_block(local=True, flip=True), local, deep),
        noise_std=0.5,
        text_channels=text.channels,
        text_length=text.length,
        sos=True,
        scale="softplus",
        soft_clip=4.0,
        mix_aspect=True,
        denoiser=_block(conditioned=True),
        rotary_size=3,
        frames=3,
        temporal_causal=2,
        denoiser_window=denoiser_window,
    )
    write_bundle(directory, flow, text, "clips")
    vae = WanConfig(2, 3, 3, (0.1, -0.2, 0.3), (0.5, 1.0, 2.0))
    weights = dict(tree_flatten(AutoencoderWan(vae).parameters()))
    write_component(directory / "vae", vae.to_dict(), weights)
    config = ModelConfig(
        model_type="starflow",
        name="clips",
        image_size=16 * grid_size,
        text=text,
        clips=ClipConfig(frames=9, fps=(8,), window=window, temporal_scale=0.6),
        defaults=SampleDefaults(guidance=1.5),
        components={"flow": "flow", "vae": "vae"},
    )
    if reference is not None:
        shutil.copytree(reference / "text_encoder", directory / "text_encoder")
        config.components["text_encoder"] = "text_encoder"
    write_json(directory / "config.json", config.to_dict())
    return directory
