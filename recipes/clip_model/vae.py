"""Fit diffusers' AutoencoderKLWan, in the form of WAN2.2's, to moving paintings."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..default_model.data import write_json
from ..default_model.optimizer import build_optimizers
from ..default_model.parallel import rank, share
from ..default_model.state import half_precision, pick_device, step_generator
from ..default_model.vae import is_matrix
from ..default_model.vae_loss import patch_statistics, picture_loss
from .fitting import fit
from .settings import Part, VAESettings

_DEAD = 1e-6  # the least variance, so that a logarithm exists


def new_autoencoder(settings: VAESettings):
    """An untrained autoencoder: 16 times smaller in space, 4 times in time."""
    from diffusers import AutoencoderKLWan

    c = settings.latent_channels
    return AutoencoderKLWan(
        base_dim=settings.base_dim,
        decoder_base_dim=settings.decoder_base_dim,
        z_dim=c,
        dim_mult=list(settings.widths),
        num_res_blocks=2,
        attn_scales=[],
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=16,
        latents_mean=[0.0] * c,
        latents_std=[1.0] * c,
    )


@torch.no_grad()
def begin_with_pictures(model) -> None:
    """Let an untrained model process each frame for itself: zero the weights of earlier frames in
    convolutions over three frames, and let those that halve or double the frames copy them."""
    for name, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Conv3d) or layer.kernel_size[0] != 3:
            continue
        layer.weight[:, :, :2] = 0
        if name.endswith("time_conv"):
            out, c = layer.weight.shape[:2]
            layer.weight[:, :, 2, 0, 0] = torch.eye(c).repeat(out // c, 1)
            layer.bias.zero_()


def _convolve(layer, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    """The layer's output. A single frame follows zeros, so only the last weights read it."""
    if x.shape[2] > 1 or cache_x is not None:
        return type(layer).forward(layer, x, cache_x)
    width, _, height, _, _, _ = layer._padding
    weight, around = layer.weight[:, :, -1], (height, width)
    return F.conv2d(x[:, :, 0], weight, layer.bias, layer.stride[1:], around).unsqueeze(2)


def quicken_pictures(model) -> None:
    """Let a model convolve single frames in two dimensions: the same numbers in less time."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    for layer in model.modules():
        if isinstance(layer, WanCausalConv3d):
            layer.forward = partial(_convolve, layer)


def lay_out(model, channels_last: bool) -> None:
    """Order the weights in memory with channels last, which is faster in training, or as usual."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
    for p in model.parameters():
        form = formats.get(p.ndim, torch.contiguous_format)
        p.data = p.data.contiguous(memory_format=form)


def set_statistics(model, mean: Tensor, std: Tensor) -> None:
    """Store the mean and standard deviation of the latent channels in the configuration."""
    model.register_to_config(
        latents_mean=[round(v, 5) for v in mean.tolist()],
        latents_std=[round(v, 5) for v in std.tolist()],
    )


def to_tensor(clips: np.ndarray, device: str = "cpu") -> Tensor:
    """uint8 (B, M, H, W, 3) → float (B, 3, M, H, W) in [-1, 1], channels last in memory."""
    x = torch.from_numpy(np.array(clips)).to(device).permute(0, 4, 1, 2, 3)
    return (x.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last_3d)


def as_pictures(x: Tensor) -> Tensor:
    """(B, 3, M, H, W) → (B · M, 3, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def _part(settings: VAESettings, step: int) -> Part:
    """The part that a step belongs to."""
    for part in settings.parts:
        step -= part.steps
        if step < 0:
            return part
    raise ValueError("The step is after the end of the training.")


def _batch(clips: np.ndarray, settings: VAESettings, step: int) -> np.ndarray:
    rng, part = np.random.default_rng([settings.seed, step]), _part(settings, step)
    rows = []
    for i in rng.integers(len(clips), size=part.batch):
        start = rng.integers(clips.shape[1] - part.frames + 1)
        clip = clips[i, start : start + part.frames]
        rows.append(clip[:, :, ::-1] if rng.random() < 0.5 else clip)
    return np.stack(rows[share(part.batch)])


def _loss(model, x: Tensor, settings: VAESettings, generator: torch.Generator):
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half_precision(x.device.type)):
        mean = model.encode(x).latent_dist.mean
        noise = torch.randn(mean.shape, generator=generator, device=x.device)
        # The decoder is trained with noise, because latents from the flow have small errors. The
        # flow reads every channel with the same deviation.
        deviation = mean.detach().float().std(dim=(0, 2, 3, 4), keepdim=True)
        y = model._decode(mean + settings.latent_noise * deviation * noise)
    y = y.sample.float()
    shown, painted = as_pictures(y), as_pictures(x)
    loss, squared, _ = picture_loss(shown, painted, settings.edge_weight, 0.0, generator)
    # Neighbouring frames are similar, and the statistics of patches cost as much as the decoder.
    some = torch.randperm(len(shown), generator=generator, device=x.device)[: len(shown) // 3]
    apart = patch_statistics(shown[some], painted[some], generator)
    loss = loss + settings.patch_weight * apart
    if x.shape[2] > 1:
        moved = F.l1_loss(y.diff(dim=2), x.diff(dim=2))
        loss = loss + settings.motion_weight * moved
    else:  # layers between frames are not used; a gradient of zero leaves them as they are
        unused = [p.sum() for name, p in model.named_parameters() if "time_conv" in name]
        loss = loss + 0 * sum(unused)
    return loss + settings.kl_weight * mean.float().square().mean(), squared


@torch.no_grad()
def reconstruct(model, clips: np.ndarray) -> np.ndarray:
    """Clips (B, M, H, W, 3) uint8 → their reconstructions, float in [0, 1]."""
    y = model.decode(model.encode(to_tensor(clips)).latent_dist.mean).sample
    return (y.clamp(-1, 1).permute(0, 2, 3, 4, 1).numpy() + 1) / 2


def frame_psnr(painted: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """10·log10(1 / MSE) of every frame (B, M); painted uint8, shown in [0, 1]."""
    error = np.square(shown - painted / np.float32(255)).mean((2, 3, 4))
    return -10 * np.log10(np.maximum(error, 1e-9))


def psnr_by_frame(model, clips: np.ndarray) -> dict[str, float]:
    """Mean over clips: of all frames, and of the first, which is encoded as a picture."""
    parts = [clips[i : i + 16] for i in range(0, len(clips), 16)]
    parts = [frame_psnr(part, reconstruct(model, part)) for part in parts]
    found = np.concatenate(parts)
    return {"all": round(float(found.mean()), 3), "first": round(float(found[:, 0].mean()), 3)}


@torch.no_grad()
def encode_means(model, clips: np.ndarray, device: str = "cpu", flip: bool = False) -> Tensor:
    """Mean latents (B, N, C, h, w) of clips, as the encoder returns them, in float32."""
    parts = []
    for start in range(0, len(clips), 16):
        x = to_tensor(clips[start : start + 16], device)
        with torch.autocast(device, torch.bfloat16, enabled=half_precision(device)):
            mean = model.encode(x.flip(-1) if flip else x).latent_dist.mean
        parts.append(mean.float().cpu().transpose(1, 2).contiguous())
    return torch.cat(parts)


def scaled(means: Tensor, model, later: float) -> Tensor:
    """Latents as the flow reads them: normalised channels, frames after the first times
    ``later``."""
    mean, std = (
        torch.tensor(values).view(-1, 1, 1)
        for values in (model.config.latents_mean, model.config.latents_std)
    )
    latents = (means - mean) / std
    latents[:, 1:] *= later
    return latents


def fit_autoencoder(
    folder: Path,
    clips: np.ndarray,
    held_out: np.ndarray,
    settings: VAESettings,
    say=lambda text: None,
    stop_after: int | None = None,
) -> None:
    """Train to the end of the schedule (or to a step) and save a diffusers directory."""
    device = pick_device()
    torch.manual_seed(settings.seed)
    model = new_autoencoder(settings).to(device)
    begin_with_pictures(model)
    quicken_pictures(model)
    lay_out(model, channels_last=True)

    def loss_at(step: int) -> tuple[Tensor, str]:
        x = to_tensor(_batch(clips, settings, step), device)
        generator = step_generator(settings.seed + rank(), step, device)
        loss, squared = _loss(model, x, settings, generator)
        text = f"train psnr {-10 * math.log10(squared.item() / 4):.2f}"
        if rank() == 0 and step % 500 == 0 and device == "cpu":
            text += f" held-out psnr {psnr_by_frame(model, held_out[:16, : settings.longest])}"
        return loss, text

    begin = 0
    for i, round_ in enumerate(settings.rounds):
        rate = round_.learning_rate
        optimizers = build_optimizers(list(model.named_parameters()), is_matrix, rate, rate)
        left = round_.steps if stop_after is None else stop_after - begin
        if left <= 0 or not fit(
            folder / f"round-{i}", model, optimizers, round_.steps,
            lambda step, begin=begin: loss_at(begin + step),
            lambda t, i=i: say(f"vae round {i} {t}"), stop_after=left,
        ):  # fmt: skip
            return
        begin += round_.steps
    if rank() == 0:
        _finish(folder, model.to("cpu").eval(), clips, held_out, settings)


def _finish(folder, model, clips, held_out, settings: VAESettings) -> None:
    sample = clips[:: max(1, len(clips) // 500), : settings.longest]
    means = encode_means(model, sample)
    first = means[:, 0].transpose(0, 1).flatten(1)
    set_statistics(model, first.mean(1), first.std(1) + _DEAD**0.5)
    later = round(1 / scaled(means, model, 1.0)[:, 1:].std().item(), 4)
    # The log-variances were not trained; set them to the noise that the decoder was trained with.
    c, noise = settings.latent_channels, settings.latent_noise * means.std(dim=(0, 1, 3, 4))
    with torch.no_grad():
        model.quant_conv.weight[c:] = 0
        model.quant_conv.bias[c:] = 2 * (noise + _DEAD).log()
    lay_out(model, channels_last=False)
    model.save_pretrained(folder / "vae")
    latents = scaled(means, model, later)
    held = held_out[:200, : settings.longest]
    write_json(
        folder / "report.json",
        {
            "held_out_psnr": psnr_by_frame(model, held),
            "temporal_scale": later,
            "std_by_frame": [round(v, 3) for v in latents.std((0, 2, 3, 4)).tolist()],
            "clips_seen": sum(part.batch * part.steps for part in settings.parts),
        },
    )
