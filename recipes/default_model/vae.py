"""Fit diffusers' AutoencoderKL to the paintings: first on crops, then on whole pictures."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data import write_json
from .optimizer import build_optimizers, cosine, descend, set_rates
from .parallel import agree, rank, share
from .settings import VAESettings
from .state import half_precision, load_state, pick_device, save_state, step_generator
from .vae_loss import picture_loss
from .warm_start import scaling_factor, start_autoencoder


def new_autoencoder(settings: VAESettings, size: int):
    """An untrained AutoencoderKL with one level per entry of `channels`, each half the size."""
    from diffusers import AutoencoderKL

    levels = len(settings.channels)
    return AutoencoderKL(
        block_out_channels=settings.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.norm_groups,
        sample_size=size,
        scaling_factor=1.0,
    )


def to_tensor(pictures: np.ndarray, device: str = "cpu") -> Tensor:
    """uint8 (B, H, W, 3) → float (B, 3, H, W) in [-1, 1], channels last in memory."""
    x = torch.from_numpy(np.array(pictures)).to(device).permute(0, 3, 1, 2)
    return (x.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def is_matrix(name: str, parameter) -> bool:
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= 8


def _schedule(settings: VAESettings) -> tuple[int, int]:
    """Numbers of steps on crops and on whole pictures."""
    on_crops = settings.images * settings.crop_share / (settings.batch / 2)
    return int(on_crops), int(settings.images * (1 - settings.crop_share) / settings.batch)


def batch_of(pictures: np.ndarray, settings: VAESettings, step: int, crops: bool) -> np.ndarray:
    """This process's pictures or crops (uint8, B × side × side × 3) of a step's batch."""
    rng = np.random.default_rng([settings.seed, step])
    size, side = pictures.shape[1], settings.crop
    n = settings.batch // 2 * (size // side) ** 2 if crops else settings.batch
    rows = []
    for i in rng.integers(len(pictures), size=n):
        picture = pictures[i]
        if crops:
            top, left = rng.integers(size - side + 1, size=2)
            picture = picture[top : top + side, left : left + side]
        rows.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
    return np.stack(rows[share(n)])


def autoencoder_loss(
    model, x: Tensor, settings: VAESettings, generator: torch.Generator, anchor=None
):
    """The loss of pictures x, their squared error and the distance of their patch statistics."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half_precision(x.device.type)):
        mean = model.encode(x).latent_dist.mean
        # Noise makes the decoder robust against the small errors of latents from the flow.
        noise = torch.randn(mean.shape, generator=generator, device=x.device)
        z = mean + settings.latent_noise * mean.detach().float().std() * noise
        y = model.decode(z).sample
    loss, squared, apart = picture_loss(
        y.float(), x, settings.edge_weight, settings.patch_weight, generator
    )
    loss = loss + settings.kl_weight * mean.float().square().mean()
    if anchor is not None:
        with torch.no_grad():
            before = anchor.encode(x).latent_dist.mean
        drift = (mean[:, : before.shape[1]] - before) / before.std()
        loss = loss + settings.anchor_weight * drift.square().mean()
    return loss, squared, apart


@torch.no_grad()
def reconstruction_psnr(model, pictures: np.ndarray, device: str = "cpu") -> float:
    """Mean over pictures of 10·log10(1 / MSE), pixels in [0, 1], reconstructions clipped."""
    values = []
    for start in range(0, len(pictures), 32):
        x = to_tensor(pictures[start : start + 32], device)
        with torch.autocast(device, torch.bfloat16, enabled=False):
            y = model.decode(model.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        error = ((y - x) / 2).square().flatten(1).mean(1)
        values += (-10 * error.log10()).tolist()
    return float(np.mean(values))


@torch.no_grad()
def encode_pictures(model, pictures: np.ndarray, device: str = "cpu", flip: bool = False) -> Tensor:
    """Mean latents (n, C, h, w) of the encoder, unscaled, in float32."""
    parts = []
    for start in range(0, len(pictures), 64):
        x = to_tensor(pictures[start : start + 64], device)
        with torch.autocast(device, torch.bfloat16, enabled=half_precision(device)):
            mean = model.encode(x.flip(-1) if flip else x).latent_dist.mean
        parts.append(mean.float().cpu().contiguous())
    return torch.cat(parts)


def _begin(model, settings: VAESettings, size: int, device: str):
    """Load `settings.start` into the model, if given. Returns the bundle's autoencoder or None."""
    if not settings.start:
        return None
    start_autoencoder(model, Path(settings.start), settings.start_channels)
    before = replace(settings, latent_channels=settings.start_channels)
    anchor = new_autoencoder(before, size).to(device).to(memory_format=torch.channels_last)
    start_autoencoder(anchor, Path(settings.start), settings.start_channels)
    return anchor.eval()


def fit_autoencoder(
    folder: Path,
    pictures: np.ndarray,
    held_out: np.ndarray,
    settings: VAESettings,
    say=lambda text: None,
    stop_after: int | None = None,
) -> None:
    """Train to the end of the schedule (or `stop_after` steps) and save a diffusers directory."""
    folder.mkdir(parents=True, exist_ok=True)
    device = pick_device()
    torch.manual_seed(settings.seed)
    model = new_autoencoder(settings, pictures.shape[1]).to(device)
    model = model.to(memory_format=torch.channels_last)
    anchor = _begin(model, settings, pictures.shape[1], device)
    optimizers = build_optimizers(
        list(model.named_parameters()), is_matrix, settings.learning_rate, settings.learning_rate
    )
    first = 0
    if state := load_state(folder / "state.pt", device):
        model.load_state_dict(state["model"])
        for optimizer, held in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        first = state["step"]
    on_crops, on_whole = _schedule(settings)
    total = on_crops + on_whole
    saved = time.monotonic()

    def save(step: int) -> None:
        held = [optimizer.state_dict() for optimizer in optimizers]
        parts = {"model": model.state_dict(), "optimizers": held, "step": step}
        if rank() == 0:
            save_state(folder / "state.pt", parts)

    for step in range(first, total):
        set_rates(optimizers, cosine(step, total, warm_up=50))
        x = to_tensor(batch_of(pictures, settings, step, step < on_crops), device)
        generator = step_generator(settings.seed + rank(), step, device)
        loss, squared, apart = autoencoder_loss(model, x, settings, generator, anchor)
        descend(loss, model, optimizers)
        if rank() == 0 and (step % 100 == 0 or step == total - 1):
            psnr = reconstruction_psnr(model, held_out[:64], device) if step % 500 == 0 else None
            say(
                f"vae step {step}/{total} loss {loss.item():.4f} "
                f"train psnr {-10 * math.log10(squared.item() / 4):.2f} "
                f"patches {1000 * apart.item():.0f}"
                + (f" held-out psnr {psnr:.2f}" if psnr else "")
            )
        if agree(time.monotonic() - saved > 120):
            save(step + 1)
            saved = time.monotonic()
        if stop_after is not None and step + 1 >= stop_after:
            return save(step + 1)
    save(total)
    if rank() == 0:
        _finish(folder, model, pictures, held_out, settings, device)


def keep_autoencoder(folder: Path, held_out: np.ndarray, settings: VAESettings) -> None:
    """Save the autoencoder of `settings.start` as it is."""
    model = new_autoencoder(settings, held_out.shape[1])
    start_autoencoder(model, Path(settings.start), settings.latent_channels)
    model.register_to_config(scaling_factor=scaling_factor(Path(settings.start)))
    model.eval().save_pretrained(folder / "vae")
    psnr = round(reconstruction_psnr(model, held_out[:1000]), 3)
    write_json(folder / "report.json", {"held_out_psnr": psnr, "images_seen": 0})


def _finish(folder, model, pictures, held_out, settings: VAESettings, device: str) -> None:
    model.eval()
    latents = encode_pictures(model, pictures[:: max(1, len(pictures) // 2000)], device)
    std = latents.std().item()
    model.register_to_config(scaling_factor=1.0 / std)
    # The log-variances were not trained; set them to the noise that the decoder was trained with.
    c = settings.latent_channels
    with torch.no_grad():
        model.quant_conv.weight[c:] = 0
        model.quant_conv.bias[c:] = 2 * math.log(settings.latent_noise * std)
    model.to("cpu").to(memory_format=torch.contiguous_format).save_pretrained(folder / "vae")
    model.to(device)
    channels = latents.std(dim=(0, 2, 3)) / std
    write_json(
        folder / "report.json",
        {
            "held_out_psnr": round(reconstruction_psnr(model, held_out[:1000], device), 3),
            "scaling_factor": 1.0 / std,
            "latent_channel_std": [round(v, 3) for v in channels.tolist()],
            "latent_channel_mean": [round(v, 3) for v in (latents.mean((0, 2, 3)) / std).tolist()],
            "images_seen": settings.images,
        },
    )
