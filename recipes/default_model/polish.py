"""Train the decoder further on latents from the flow, so that drawn pictures become sharp.

Each step uses three kinds of latents, in fixed shares: clean latents of paintings; latents of
paintings that were noised and then denoised by the flow, which blurs them as much as samples; and
samples of the flow for the captions of paintings. The first two are compared with their painting,
samples only by the statistics of patches. Encoder and flow do not change.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .flow import denoise
from .latents import rows_of
from .optimizer import build_optimizers, cosine, set_rates
from .sampler import invert
from .settings import PolishSettings
from .state import load_state, save_state, step_generator
from .text import encode, null_ids
from .vae import is_matrix, to_tensor
from .vae_loss import gradient_statistics, patch_statistics, picture_loss

_CHUNK = 64
_SHARES = {"clean": 0.25, "denoised": 0.375, "drawn": 0.375}


@dataclass(frozen=True)
class Latents:
    """Scaled latents (n, C, h, w) and, for each, the row of its painting."""

    values: np.ndarray
    rows: np.ndarray


def latents_for_polish(
    folder: Path,
    flow,
    encoder,
    train: tuple[np.ndarray, np.ndarray],
    settings: PolishSettings,
    noise_std: float,
    guidance: float,
    say=lambda line: None,
) -> dict[str, Latents]:
    """Return the three kinds of latents by name, made from latents and token ids of the training
    paintings and stored in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    latents, tokens = train
    count = min(len(tokens), len(latents))
    drawn_rows = np.arange(min(settings.drawn, count))
    denoised_rows = np.arange(count)[-settings.denoised :]
    for p in flow.parameters():
        p.requires_grad_(False)

    def denoised(rows: np.ndarray) -> Tensor:
        x, ids = rows_of(latents, tokens, rows, np.random.default_rng(int(rows[0])))
        generator = step_generator(settings.seed, int(rows[0]))
        x = x + noise_std * torch.randn(x.shape, generator=generator)
        with torch.no_grad():
            text = encode(encoder, ids)
        return denoise(flow, x, text, noise_std)

    def drawn(rows: np.ndarray) -> Tensor:
        x, ids = rows_of(latents, tokens, rows, np.random.default_rng(int(rows[0])))
        z = torch.randn(x.shape, generator=step_generator(settings.seed + 1, int(rows[0])))
        with torch.no_grad():
            text = encode(encoder, torch.cat([ids, null_ids(ids.shape[1], len(ids))]))
        return denoise(flow, invert(flow, z, text, guidance)[-1], text[: len(ids)], noise_std)

    def kept(name: str, rows: np.ndarray, make) -> np.ndarray:
        parts = []
        for part in np.split(rows, range(_CHUNK, len(rows), _CHUNK)):
            path = folder / f"{name}.{part[0]}.npy"
            if not path.exists():
                np.save(folder / "partial.npy", make(part).numpy())
                (folder / "partial.npy").replace(path)
                say(f"{name} {part[0]}")
            parts.append(np.load(path))
        return np.concatenate(parts)

    return {
        "clean": Latents(latents[:count], np.arange(count)),
        "denoised": Latents(kept("denoised", denoised_rows, denoised), denoised_rows),
        "drawn": Latents(kept("drawn", drawn_rows, drawn), drawn_rows),
    }


def _batch(
    kinds: dict[str, Latents], pictures: np.ndarray, settings: PolishSettings, step: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """For each kind, latents and paintings of one step: crops at first, whole ones at the end."""
    rng = np.random.default_rng([settings.seed, step])
    size, cells = pictures.shape[1], kinds["clean"].values.shape[-1]
    factor = size // cells
    whole = step >= settings.crop_share * settings.steps
    side = cells if whole else settings.crop // factor
    count = settings.pictures * (cells // side) ** 2
    z, x = {}, {}
    for name, share in _SHARES.items():
        held, n = kinds[name], max(1, round(share * count))
        latents, paintings = [], []
        for i in rng.integers(len(held.values), size=n):
            top, left = rng.integers(cells - side + 1, size=2)
            latents.append(held.values[i, :, top : top + side, left : left + side])
            y0, x0, length = top * factor, left * factor, side * factor
            paintings.append(pictures[held.rows[i], y0 : y0 + length, x0 : x0 + length])
        z[name] = torch.from_numpy(np.stack(latents).astype(np.float32))
        x[name] = to_tensor(np.stack(paintings))
    return z, x


def _loss(model, z: dict, x: dict, settings: PolishSettings, generator: torch.Generator):
    noise = torch.randn(z["clean"].shape, generator=generator)
    z = {**z, "clean": z["clean"] + settings.clean_noise * noise}
    joined = torch.cat([z[name] for name in _SHARES]) / model.config.scaling_factor
    joined = joined.contiguous(memory_format=torch.channels_last)
    y = dict(
        zip(_SHARES, model.decode(joined).sample.split([len(z[n]) for n in _SHARES]), strict=True)
    )
    paired = [torch.cat([side["clean"], side["denoised"]]) for side in (y, x)]
    loss, squared, near = picture_loss(
        *paired, settings.edge_weight, settings.patch_weight, generator
    )
    apart = patch_statistics(y["drawn"], x["drawn"], generator, remainder=False)
    ripples = gradient_statistics(y["drawn"], x["drawn"]) + gradient_statistics(*paired)
    loss = loss + settings.drawn_weight * apart + settings.gradient_weight * ripples
    return loss, squared, near, apart, ripples


def polish_decoder(
    folder: Path,
    model,
    kinds: dict[str, Latents],
    pictures: np.ndarray,
    settings: PolishSettings,
    say=lambda line: None,
    save_seconds: float = 120.0,
    stop_after: int | None = None,
) -> None:
    """Train `model`'s decoder to the end and save the diffusers directory ``folder/vae``."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.to(memory_format=torch.channels_last)
    named = [
        (name, p)
        for name, p in model.named_parameters()
        if name.startswith(("decoder.", "post_quant_conv."))
    ]
    optimizers = build_optimizers(named, is_matrix, settings.learning_rate, settings.learning_rate)
    first = 0
    if state := load_state(folder / "state.pt"):
        model.load_state_dict(state["model"])
        for optimizer, held in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        first = state["step"]

    def save(step: int) -> None:
        held = [optimizer.state_dict() for optimizer in optimizers]
        parts = {"model": model.state_dict(), "optimizers": held, "step": step}
        save_state(folder / "state.pt", parts)

    saved = time.monotonic()
    for step in range(first, settings.steps):
        set_rates(optimizers, cosine(step, settings.steps, warm_up=30))
        generator = step_generator(settings.seed, step)
        losses = _loss(model, *_batch(kinds, pictures, settings, step), settings, generator)
        for _, p in named:
            p.grad = None
        losses[0].backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if step % 20 == 0:
            shown = " ".join(f"{1000 * value.item():.1f}" for value in losses)
            names = "loss, squared, patches, drawn, ripples"
            say(f"polish step {step}/{settings.steps} {names}: {shown}")
        if time.monotonic() - saved > save_seconds:
            save(step + 1)
            saved = time.monotonic()
        if stop_after is not None and step + 1 >= stop_after:
            return save(step + 1)
    save(settings.steps)
    finished = model.eval().to(memory_format=torch.contiguous_format)
    finished.save_pretrained(folder / "vae")
