"""Polish the decoder of a finished bundle, without changes to flow, encoder and vocabulary.

python -m recipes.default_model.polish_bundle BUNDLE OUTPUT --work FOLDER [--paintings 3072]

Paints scenes that the bundle's vocabulary can describe, denoises and samples with its flow, and
trains the decoder on the resulting latents (``polish``). FOLDER has the result of every stage, so
that an interrupted run can continue.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from .flow import STARFlow
from .known import paint_all, read_vocabulary, scenes_and_captions
from .polish import latents_for_polish, polish_decoder
from .settings import Recipe, full
from .text import build_encoder
from .tokenizer import PAD_ID
from .vae import encode_pictures, new_autoencoder
from .warm_start import scaling_factor, start_autoencoder, start_encoder, start_flow

_SEED = 8_000_000  # of the scenes; `sharpness` uses other seeds


def fitting_recipe(bundle: Path, recipe: Recipe) -> Recipe:
    """The recipe with the bundle's number of latent channels."""
    channels = json.loads((bundle / "vae" / "config.json").read_text())["latent_channels"]
    return replace(
        recipe,
        vae=replace(recipe.vae, latent_channels=channels),
        flow=replace(recipe.flow, shape=replace(recipe.flow.shape, channel_size=channels)),
    )


def load_parts(bundle: Path, recipe: Recipe):
    """The bundle's autoencoder, flow, text encoder (in PyTorch) and its tokenizer."""
    from tokenizers import Tokenizer

    channels = recipe.vae.latent_channels
    model = new_autoencoder(recipe.vae, recipe.data.size)
    start_autoencoder(model, bundle, channels)
    model.register_to_config(scaling_factor=scaling_factor(bundle))
    flow = STARFlow(recipe.flow.shape)
    start_flow(flow, bundle, channels)
    tokenizer = Tokenizer.from_file(str(bundle / "text_encoder" / "tokenizer.json"))
    encoder = build_encoder(recipe.text, tokenizer.get_vocab_size())
    start_encoder(encoder, bundle, tokenizer.get_vocab())
    return model.eval(), flow.eval(), encoder.eval(), tokenizer


def _training_data(work: Path, bundle: Path, model, tokenizer, recipe: Recipe, count: int):
    """Paintings (n, size, size, 3), scaled latents (n, C, h, w) and token ids (n, 1, length)."""
    scenes, captions = scenes_and_captions(count, read_vocabulary(bundle), _SEED)
    length = recipe.flow.shape.text_size
    tokenizer.enable_padding(pad_id=PAD_ID, length=length)
    tokenizer.enable_truncation(length)
    ids = np.array([held.ids for held in tokenizer.encode_batch(captions)], np.uint16)
    path = work / "paintings.npz"
    if not path.exists():
        pictures = paint_all(scenes, recipe.data.size)
        latents = encode_pictures(model, pictures).numpy() * model.config.scaling_factor
        np.savez(work / "partial.npz", pictures=pictures, latents=latents)
        (work / "partial.npz").replace(path)
    with np.load(path) as held:
        return held["pictures"], held["latents"], ids[:, None]


def write_decoder(bundle: Path, model, output: Path) -> None:
    """Write a copy of the bundle with the decoder of `model` to `output`."""
    if output.resolve() != bundle.resolve():
        shutil.copytree(bundle, output, dirs_exist_ok=True)
    path = output / "vae" / "model.safetensors"
    held = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = model.state_dict()
    for name, old in held.items():
        if not name.startswith(("decoder.", "post_quant_conv.")):
            continue
        new = state[name].detach().cpu()
        new = new.permute(0, 2, 3, 1) if new.ndim == 4 else new
        if new.shape != old.shape:
            raise ValueError(
                f"{name} has the shape {tuple(new.shape)}; the bundle has {tuple(old.shape)}"
            )
        held[name] = new.to(old.dtype).contiguous()
    partial = path.with_suffix(".partial")
    save_file(held, partial, metadata)
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of this run")
    parser.add_argument("--paintings", type=int, default=3072)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)

    recipe = fitting_recipe(options.bundle, full())
    model, flow, encoder, tokenizer = load_parts(options.bundle, recipe)
    pictures, *train = _training_data(
        options.work, options.bundle, model, tokenizer, recipe, options.paintings
    )
    noise, guidance = recipe.flow.noise_std, recipe.guidance
    kinds = latents_for_polish(
        options.work, flow, encoder, tuple(train), recipe.polish, noise, guidance, say
    )
    torch.manual_seed(recipe.polish.seed)
    polish_decoder(options.work, model, kinds, pictures, recipe.polish, say)
    write_decoder(options.bundle, model, options.output)


if __name__ == "__main__":
    main()
