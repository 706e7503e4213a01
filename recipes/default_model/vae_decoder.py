"""Train only the decoder of a finished autoencoder further: its latents, and so the flow, stay."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from .data import write_json
from .optimizer import build_optimizers, cosine, set_rates
from .parallel import agree, average_gradients, rank
from .settings import VAESettings
from .state import load_state, pick_device, save_state, step_generator
from .vae import autoencoder_loss, batch_of, is_matrix, reconstruction_psnr, to_tensor

_SAVE_SECONDS = 120


def fit_decoder(
    folder: Path,
    autoencoder: Path,
    pictures: np.ndarray,
    held_out: np.ndarray,
    settings: VAESettings,
    say=lambda text: None,
) -> None:
    """Train on `settings.decoder_images` whole pictures; writes FOLDER/vae and FOLDER/report.json.

    autoencoder: a diffusers directory, which stays as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = pick_device()
    model = AutoencoderKL.from_pretrained(autoencoder).to(device)
    model = model.to(memory_format=torch.channels_last)
    trained = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if name.startswith(("decoder.", "post_quant_conv."))
    ]
    model.requires_grad_(False)
    for _, parameter in trained:
        parameter.requires_grad_(True)
    rate = settings.decoder_learning_rate
    optimizers = build_optimizers(trained, is_matrix, rate, rate)
    settings = replace(settings, latent_noise=settings.decoder_latent_noise)
    first, total = 0, settings.decoder_images // settings.batch
    if state := load_state(folder / "state.pt", device):
        model.load_state_dict(state["model"])
        for optimizer, held in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        first = state["step"]
    saved = time.monotonic()
    for step in range(first, total):
        set_rates(optimizers, cosine(step, total, warm_up=20))
        x = to_tensor(batch_of(pictures, settings, total + step, crops=False), device)
        generator = step_generator(settings.seed + rank(), step, device)
        loss, _, _ = autoencoder_loss(model, x, settings, generator)
        model.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(parameter for _, parameter in trained)
        torch.nn.utils.clip_grad_norm_([parameter for _, parameter in trained], 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if rank() == 0 and step % 50 == 0:
            say(f"decoder step {step}/{total} loss {loss.item():.4f}")
        if agree(time.monotonic() - saved > _SAVE_SECONDS) and rank() == 0:
            held = [optimizer.state_dict() for optimizer in optimizers]
            parts = {"model": model.state_dict(), "optimizers": held, "step": step + 1}
            save_state(folder / "state.pt", parts)
            saved = time.monotonic()
    if rank() == 0:
        model.eval()
        model.to("cpu").to(memory_format=torch.contiguous_format).save_pretrained(folder / "vae")
        psnr = reconstruction_psnr(model.to(device), held_out[:1000], device)
        write_json(folder / "report.json", {"held_out_psnr": round(psnr, 3)})
        say(f"decoder: held-out psnr {psnr:.2f}")
