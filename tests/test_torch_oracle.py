"""The recipe's PyTorch STARFlow as a second opinion on random configurations (needs PyTorch)."""

from __future__ import annotations

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


def _converted(flow, folder):
    from recipes.default_model.export import published_settings, write_checkpoint

    size = flow.shape.grid * flow.shape.patch_size * 8
    settings = published_settings(flow.shape, size, noise_std=0.3)
    write_checkpoint(folder / "random.pth", flow.state_dict(), settings)
    options = ConvertOptions(folder / "random.pth", folder / "bundle", dtype="float32")
    convert_checkpoint(options)
    return sf.load(folder / "bundle").flow


def _same(ours: mx.array, theirs) -> None:
    wanted = theirs.permute(0, 2, 3, 1).numpy() if theirs.ndim == 4 else theirs.numpy()
    assert np.abs(np.array(ours) - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize("seed", range(8))
def test_both_engines_agree(seed, tmp_path):
    from recipes.default_model.flow import denoise, log_prob
    from recipes.default_model.sampler import invert

    rng = np.random.default_rng(seed)
    flow = _random_flow(_random_shape(rng), seed)
    shape = flow.shape
    engine = _converted(flow, tmp_path)
    side = shape.grid * shape.patch_size
    x = torch.randn(2, shape.channel_size, side, side)
    text = torch.randn(4, shape.text_size, shape.text_width)
    ours, context = (mx.array(a.numpy()) for a in (x.permute(0, 2, 3, 1), text))
    with torch.no_grad():
        z, _ = flow(x, text[:2])
        _same(engine(ours, context[:2])[0], z)
        _same(sf.log_prob(engine, ours, context[:2]), log_prob(flow, x, text[:2]))
    sample = invert(flow, x, text, guidance=2.5)[-1]
    _same(sf.invert(engine, ours, context, guidance=2.5, sampler="sequential"), sample)
    clean = denoise(flow, x, text[:2], 0.3)
    _same(sf.denoise(engine, ours, context[:2], noise_std=0.3), clean)
