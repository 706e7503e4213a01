"""The recipe's PyTorch STARFlow as a second opinion on random configurations (needs PyTorch)."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import mlx_starflow as sf  # noqa: E402
from convert.bundle import convert_checkpoint  # noqa: E402
from convert.options import ConvertOptions  # noqa: E402

TOLERANCE = 1e-4  # of the largest number


def _random_shape(rng: np.random.Generator):
    from recipes.default_model.flow import FlowShape

    head_dim = int(rng.choice([24, 32, 64]))
    blocks = int(rng.integers(2, 5))
    layers = [int(n) for n in rng.integers(0, 3, blocks - 1)] + [int(rng.integers(1, 4))]
    return FlowShape(
        grid=int(rng.integers(2, 5)),
        channel_size=int(rng.choice([3, 4, 6])),
        patch_size=int(rng.choice([1, 2])),
        channels=head_dim * int(rng.integers(1, 4)),
        head_dim=head_dim,
        layers_per_block=tuple(layers),
        text_size=int(rng.integers(1, 7)),
        text_width=int(rng.integers(8, 24)),
        sos=bool(rng.random() < 0.7),
        right_to_left=bool(rng.random() < 0.5),
        use_softplus=bool(rng.random() < 0.5),
        cond_top_only=bool(rng.random() < 0.5),
        use_final_norm=bool(rng.random() < 0.5),
        soft_clip=float(rng.choice([0.0, 2.5, 4.0])),
    )


def _random_flow(shape, seed: int):
    from recipes.default_model.flow import STARFlow

    torch.manual_seed(seed)
    flow = STARFlow(shape)
    with torch.no_grad():
        for name, p in flow.named_parameters():
            if "proj_out" in name:
                p.normal_(0, 0.02)  # stronger ones overflow when fed back token after token
            elif "norm" in name:
                p.add_(0.2 * torch.randn_like(p))
    return flow.eval()


def _converted(flow, folder, vae=None):
    from recipes.default_model.export import clip_settings, published_settings, write_checkpoint

    size = flow.shape.grid * flow.shape.patch_size * (16 if vae else 8)
    settings = published_settings(flow.shape, size, noise_std=0.3)
    if flow.shape.frames > 1:
        settings |= clip_settings(flow.shape, 4 * flow.shape.frames - 3, fps=8, scale=0.7)
    write_checkpoint(folder / "random.pth", flow.state_dict(), settings)
    options = ConvertOptions(folder / "random.pth", folder / "bundle", dtype="float32", vae=vae)
    convert_checkpoint(options)
    return sf.load(folder / "bundle")


def _same(ours: mx.array, theirs) -> None:
    wanted = theirs.movedim(-3, -1).numpy() if theirs.ndim >= 4 else theirs.numpy()
    assert np.abs(np.array(ours) - wanted).max() <= TOLERANCE * np.abs(wanted).max()


def _compare(flow, x, folder) -> None:
    """Noise, likelihood, guided sample and denoising of x, channels first, by both engines."""
    from recipes.default_model.flow import denoise, log_prob
    from recipes.default_model.sampler import invert

    engine = _converted(flow, folder).flow
    text = torch.randn(4, flow.shape.text_size, flow.shape.text_width)
    ours, context = (mx.array(a.numpy()) for a in (x.movedim(-3, -1), text))
    with torch.no_grad():
        z, _ = flow(x, text[:2])
        _same(engine(ours, context[:2])[0], z)
        _same(sf.log_prob(engine, ours, context[:2]), log_prob(flow, x, text[:2]))
    sample = invert(flow, x, text, guidance=2.5)[-1]
    _same(sf.invert(engine, ours, context, guidance=2.5, sampler="sequential"), sample)
    clean = denoise(flow, x, text[:2], 0.3)
    _same(sf.denoise(engine, ours, context[:2], noise_std=0.3), clean)


@pytest.mark.parametrize("seed", range(8))
def test_both_engines_agree(seed, tmp_path):
    shape = _random_shape(np.random.default_rng(seed))
    flow = _random_flow(shape, seed)
    side = shape.grid * shape.patch_size
    _compare(flow, torch.randn(2, shape.channel_size, side, side), tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_both_engines_agree_on_clips(seed, tmp_path):
    rng = np.random.default_rng(seed)
    local = bool(seed % 2)
    shape = replace(
        _random_shape(rng),
        right_to_left=False,
        rope=True,
        local=local,
        cond_top_only=local,
        frames=int(rng.integers(2, 5)),
    )
    flow = _random_flow(shape, seed)
    sides = shape.grid * shape.patch_size, (shape.grid + 1) * shape.patch_size
    _compare(flow, torch.randn(2, shape.frames + 1, shape.channel_size, *sides), tmp_path)


def test_both_autoencoders_of_clips_agree(tmp_path):
    pytest.importorskip("diffusers")
    from recipes.clip_model.settings import toy
    from recipes.clip_model.vae import new_autoencoder, scaled, set_statistics
    from recipes.default_model.flow import FlowShape

    torch.manual_seed(0)
    model, c = new_autoencoder(toy().vae).eval(), toy().vae.latent_channels
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "gamma" in name:
                p.add_(0.2 * torch.randn_like(p))
    set_statistics(model, torch.randn(c), torch.rand(c) + 0.5)
    model.save_pretrained(tmp_path / "vae")
    shape = FlowShape(channel_size=c, patch_size=1, text_size=3, frames=5, local=True)
    bundle = _converted(_random_flow(shape, 0), tmp_path, str(tmp_path / "vae"))
    x = torch.rand(2, 3, 9, 32, 48) * 2 - 1
    with torch.no_grad():
        mean = model.encode(x).latent_dist.mean
        y = model.decode(mean).sample
    ours = bundle.vae.encode(mx.array(x.permute(0, 2, 3, 4, 1).numpy()))
    _same(ours, scaled(mean.transpose(1, 2), model, 0.7))
    _same(mx.clip(bundle.vae.decode(ours), -1, 1), y.transpose(1, 2))
