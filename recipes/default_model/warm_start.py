"""Start training from a finished bundle, also with more latent channels or words than it has.

New weights are set such that they have no effect at first, so that the result is unchanged.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .flow import FlowShape
from .settings import Recipe

_NEW_GAIN = 8.0  # gives new channels about the standard deviation of the old ones


def started_from(recipe: Recipe, bundle: Path) -> Recipe:
    """The recipe with autoencoder and flow started from a bundle of as many channels or fewer."""
    channels = json.loads((bundle / "vae" / "config.json").read_text())["latent_channels"]
    begun = {"start": str(bundle), "start_channels": channels}
    return replace(recipe, vae=replace(recipe.vae, **begun), flow=replace(recipe.flow, **begun))


def read_component(bundle: Path, name: str) -> dict[str, Tensor]:
    """float32 weights of a component, with convolutions in PyTorch's order (out, in, kh, kw)."""
    held = load_file(bundle / name / "model.safetensors")
    return {
        key: (value.permute(0, 3, 1, 2) if value.ndim == 4 else value).float().contiguous()
        for key, value in held.items()
    }


def scaling_factor(bundle: Path) -> float:
    return json.loads((bundle / "vae" / "config.json").read_text())["scaling_factor"]


def start_autoencoder(model, bundle: Path, old_channels: int, seed: int = 0) -> None:
    """Load the bundle's autoencoder into one with the same widths and more latent channels."""
    state, fresh = read_component(bundle, "vae"), model.state_dict()
    generator = torch.Generator().manual_seed(seed)
    c = fresh["post_quant_conv.weight"].shape[0]
    for name, value in fresh.items():
        if value.shape == state[name].shape:
            value.copy_(state[name])
    extra = c - old_channels
    if not extra:
        return
    # Encoder: the new means are computed from the last features with random rows of the same size
    # as the old rows. The old means use all old rows, those of the log-variances too.
    for part in ("weight", "bias"):
        old = state[f"encoder.conv_out.{part}"]
        grown = fresh[f"encoder.conv_out.{part}"]
        grown.zero_()
        grown[:old_channels], grown[c : c + old_channels] = old.chunk(2)
        if part == "weight":
            size = old[:old_channels].std()
            rows = torch.randn(grown[old_channels:c].shape, generator=generator)
            grown[old_channels:c] = size * rows
    fresh["quant_conv.weight"].zero_()
    fresh["quant_conv.bias"].zero_()
    mixing = fresh["quant_conv.weight"]
    rows = state["quant_conv.weight"][:old_channels]
    mixing[:old_channels, :old_channels] = rows[:, :old_channels]
    mixing[:old_channels, c : c + old_channels] = rows[:, old_channels:]
    mixing[old_channels:c, old_channels:c] = _NEW_GAIN * torch.eye(extra)[:, :, None, None]
    fresh["quant_conv.bias"][:old_channels] = state["quant_conv.bias"][:old_channels]
    mixing = fresh["post_quant_conv.weight"]
    mixing.zero_()
    mixing[:old_channels, :old_channels] = state["post_quant_conv.weight"]
    mixing[old_channels:, old_channels:] = torch.eye(extra)[:, :, None, None]
    fresh["post_quant_conv.bias"].zero_()
    fresh["post_quant_conv.bias"][:old_channels] = state["post_quant_conv.bias"]
    old = state["decoder.conv_in.weight"]
    columns = (
        0.02 * old.std() * torch.randn(fresh["decoder.conv_in.weight"].shape, generator=generator)
    )
    columns[:, :old_channels] = old
    fresh["decoder.conv_in.weight"].copy_(columns)


def _published(key: str) -> str:
    """The name in the checkpoint of a flow weight of the bundle."""
    for ours, theirs in (
        (".layers.", ".attn_blocks."),
        (".mlp.up.", ".mlp.main.0."),
        (".mlp.down.", ".mlp.main.2."),
    ):
        key = key.replace(ours, theirs)
    return key


def _token_places(shape: FlowShape, old_channels: int) -> Tensor:
    """Indices of the old channels' numbers in a token (row, column, channel fastest)."""
    places = torch.arange(shape.token_size).view(-1, shape.channel_size)
    return places[:, :old_channels].reshape(-1)


def start_flow(flow, bundle: Path, old_channels: int) -> None:
    """Load the bundle's flow; if the new flow has more channels, it maps these to themselves."""
    state = {_published(k): v for k, v in read_component(bundle, "flow").items()}
    shape = flow.shape
    places = _token_places(shape, old_channels)
    fresh = flow.state_dict()
    for name, value in fresh.items():
        old, end = state[name], name.split(".", 2)[-1]
        if end == "sos_embed":
            old = old.view(1, 1, -1)
        if value.shape == old.shape:
            value.copy_(old)
            continue
        if end == "proj_in.weight":
            value.normal_(0, 0.02)
            value[:, places] = old
        elif end == "sos_embed":
            value.zero_()
            value[..., places] = old
        elif end in ("proj_out.weight", "proj_out.bias"):
            value.zero_()
            both = torch.cat([places, places + shape.token_size])
            value[both] = old
        else:
            raise ValueError(
                f"{name}: {tuple(old.shape)} cannot be extended to {tuple(value.shape)}"
            )


def start_encoder(encoder, bundle: Path, words: dict[str, int]) -> None:
    """Load the bundle's text encoder into one with other words; known words keep their vectors."""
    state = read_component(bundle, "text_encoder")
    listed = json.loads((bundle / "text_encoder" / "tokenizer.json").read_text())
    old_words = listed["model"]["vocab"]
    fresh = encoder.state_dict()
    for name, value in fresh.items():
        if name.endswith("embed_tokens.weight") or name == "lm_head.weight":
            old = state["model.embed_tokens.weight"]
            for word, row in words.items():
                if word in old_words:
                    value[row] = old[old_words[word]]
        else:
            value.copy_(state[name])
