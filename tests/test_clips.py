"""Clips: what has to hold for every flow over frames, with random weights."""

import dataclasses
import weakref
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
from families import CLIPS, FAMILIES, ROUNDING, example, example_clip, random_flow, sensitivity

from mlx_starflow import SampleOptions, denoise, encode, invert, invert_steps, log_prob
from mlx_starflow.errors import ConfigError, UsageError
from mlx_starflow.exact.composition import composition
from mlx_starflow.exact.denoise import score
from mlx_starflow.exact.scoring import ScoreOptions, score_pictures
from mlx_starflow.flow import block as block_module
from mlx_starflow.flow import layers as layers_module
from mlx_starflow.flow.grid import grid_of, patchify, unpatchify
from mlx_starflow.sampling.stretches import stretches

pytestmark = pytest.mark.parametrize("name", CLIPS)
CLOSE = 3e-5 * ROUNDING


def close(a: mx.array, b: mx.array, scale: float = 1.0) -> bool:
    return mx.abs(a - b).max().item() <= CLOSE * scale * max(1.0, mx.abs(b).max().item())


def test_tokens_are_those_of_the_frames_one_after_another(name):
    config = FAMILIES[name]
    x, _ = example_clip(config)
    tokens = patchify(x, config)
    by_frame = [patchify(x[:, f], config) for f in range(3)]
    assert mx.array_equal(tokens, mx.concatenate(by_frame, axis=1))
    assert mx.array_equal(unpatchify(tokens, grid_of(x, config), config), x)


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_round_trip(name, guidance):
    config = FAMILIES[name]
    flow, (z, context) = random_flow(config), example_clip(config, guided=guidance > 0)
    scale = sensitivity(lambda n: invert(flow, n, context, guidance=guidance), z)
    for sampler in ("sequential", "sliding", "auto", "jacobi"):
        options = dict(guidance=guidance, sampler=sampler)
        if sampler == "jacobi":
            options |= dict(block_size=3, tolerance=1e-11, max_sweeps=100)
        *_, last = invert_steps(flow, z, context, SampleOptions(**options))
        assert last.report.converged, sampler
        assert close(encode(flow, last.x, context, guidance=guidance).z, z, scale), sampler
        if not guidance:
            assert close(flow(last.x, context)[0], z, scale), sampler


def test_one_frame_is_a_picture(name):
    config = FAMILIES[name]
    flow, (z, context) = random_flow(config), example(config)
    clip = z[:, None]
    assert mx.array_equal(flow(clip, context)[0][:, 0], flow(z, context)[0])
    assert mx.array_equal(log_prob(flow, clip, context), log_prob(flow, z, context))
    assert mx.allclose(denoise(flow, clip, context)[:, 0], denoise(flow, z, context), atol=1e-6)
    for sampler in ("sequential", "sliding", "jacobi"):
        a = invert(flow, clip, context, sampler=sampler)
        assert mx.array_equal(a[:, 0], invert(flow, z, context, sampler=sampler))


def test_first_frames_depend_on_first_frames_only(name):
    config = FAMILIES[name]
    flow, (x, context) = random_flow(config), example_clip(config)
    other = mx.concatenate([x[:, :2], 2 * x[:, 2:]], axis=1)
    z, changed = flow(x, context)[0], flow(other, context)[0]
    assert close(z[:, :2], changed[:, :2]) and not close(z[:, 2], changed[:, 2])
    assert close(flow(x[:, :2], context)[0], z[:, :2])  # nor on how many follow
    a, b = (invert(flow, v, context, sampler="sequential") for v in (x, other))
    assert close(a[:, :2], b[:, :2])


def test_local_blocks_take_frames_as_a_batch(name):
    config = FAMILIES[name]
    if not any(block.local for block in config.blocks):
        pytest.skip("this family has no local blocks")
    flow, (x, context) = random_flow(config), example_clip(config)
    whole, frames = grid_of(x, config), grid_of(x[:, 0], config)
    for index, block in enumerate(config.blocks):
        if not block.local:
            continue
        u, log_scale = flow.through_block(index, patchify(x, config), whole, context)
        for f in range(3):
            one = flow.through_block(index, patchify(x[:, f], config), frames, context)
            rows = slice(f * frames.tokens, (f + 1) * frames.tokens)
            assert close(u[:, rows], one[0]) and close(log_scale[:, rows], one[1])


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_given_frames_come_back_exactly(name, guidance):
    config = FAMILIES[name]
    flow, (z, context) = random_flow(config), example_clip(config, guided=guidance > 0)
    own = context[:2]

    def solved(noise: mx.array) -> mx.array:
        return invert(flow, noise, own, sampler="sequential")

    scale = 1.0 if guidance else sensitivity(solved, z)
    for sampler, count in product(("sequential", "sliding"), (1, 2)):
        given = 0.7 * z[:, ::-1][:, :count]
        options = dict(guidance=guidance, sampler=sampler)
        x = invert(flow, z, context, given=given, **options)
        assert mx.array_equal(x[:, :count], given)
        nothing = mx.concatenate([mx.zeros_like(given), z[:, count:]], axis=1)
        assert mx.array_equal(x, invert(flow, nothing, context, given=given, **options))
        if not guidance:  # the same as the noise of these frames being that of the given ones
            own_noise = mx.concatenate([flow(given, own)[0], z[:, count:]], axis=1)
            assert close(x, solved(own_noise), scale)


@pytest.mark.parametrize("given", [0, pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_long_clip_is_continued_in_windows(name, given):
    """Each window, given alone to the deep block, maps its new frames to their noise."""
    config = FAMILIES[name]
    flow, (z, context) = random_flow(config), example_clip(config, frames=6)
    deep, options = len(config.blocks) - 1, dict(window=3, context_frames=2)
    frames = z[:, :given] if given else None
    for sampler in ("sequential", "sliding", "jacobi"):
        more = dict(tolerance=1e-11, max_sweeps=100) if sampler == "jacobi" else {}
        own = SampleOptions(sampler=sampler, **options, **more)
        first = next(e for e in invert_steps(flow, z, context, own, frames) if hasattr(e, "x"))
        assert first.block == deep and first.report.converged
        for part in stretches(6, given, 3, 2):
            x = first.x[:, part.first : part.stop]
            v, _ = flow.through_block(deep, patchify(x, config), grid_of(x, config), context)
            v = unpatchify(v, grid_of(x, config), config)
            expected = z[:, part.solved : part.stop]
            assert close(v[:, part.known :], expected, 10)
    if given:
        return
    x = invert(flow, z, context, sampler="sequential", **options)
    scale = sensitivity(lambda n: invert(flow, n, context, sampler="sequential", **options), z, x)
    assert close(encode(flow, x, context, **options).z, z, scale)
    short = invert(flow, z[:, :3], context, sampler="sequential")
    assert close(x[:, :3], short, scale)


def test_one_window_of_keys_is_kept_at_a_time(name, monkeypatch):
    config = FAMILIES[name]
    flow, (z, context) = random_flow(config), example_clip(config, frames=6)
    alive, most = [], []

    class Counted(block_module.KVCache):
        def reserve(self, like):
            if self.keys is None:
                alive.append(weakref.ref(self))
            most.append(sum(cache() is not None for cache in alive))
            super().reserve(like)

    monkeypatch.setattr(block_module, "make_cache", lambda capacity, *_: Counted(capacity))
    invert(flow, z, context, window=3, context_frames=1, sampler="sequential")
    assert max(most) == max(block.layers for block in config.blocks)


def test_nonsense_windows_are_refused(name):
    config = FAMILIES[name]
    flow, (z, context) = random_flow(config), example_clip(config, frames=4)
    for options in (dict(window=2), dict(window=2, context_frames=2)):
        with pytest.raises(UsageError, match="context_frames is"):
            invert(flow, z, context, **options)
    for options in (dict(context_frames=0), dict(context_frames=None), dict(window=0)):
        with pytest.raises(UsageError, match="expected a whole number|1 frame or more"):
            invert(flow, z, context, **options)
    assert invert(flow, z, context, window=4).shape == z.shape  # nothing to continue
    for given in (z, z[:, :0], z[:1, :1], z[:, :1, 1:], z[:, 0]):
        with pytest.raises(UsageError):
            invert(flow, z, context, given=given)
    with pytest.raises(UsageError, match="belong to a clip"):
        invert(flow, z[:, 0], context, given=z[:, :1])


def test_the_denoiser_sees_the_frames_it_should(name):
    config = FAMILIES[name]
    flow, (x, context) = random_flow(config), example_clip(config, frames=4)
    ahead, window = config.temporal_causal - 1, config.denoiser_window
    layers = config.denoiser.layers
    clean = denoise(flow, x, context, method="learned")
    for f in range(4):
        moved = mx.concatenate([x[:, :f], x[:, f : f + 1] + 1, x[:, f + 1 :]], axis=1)
        changed = mx.abs(denoise(flow, moved, context) - clean).max(axis=(0, 2, 3, 4))
        for other, difference in enumerate(changed.tolist()):
            # With every layer frames reach one window further; text carries the first ones on.
            sees = f - layers * ahead <= other
            if config.denoiser.conditioned:
                sees = sees or f <= layers * ahead
            elif window is not None:
                sees = sees and other <= f + layers * (window - ahead)
            assert sees or difference < 1e-6, (f, other)
        assert changed[f] > 0.1


def test_denoised_in_pieces(name):
    config = FAMILIES[name]
    flow, (x, context) = random_flow(config), example_clip(config, frames=5)
    overlap = 2 if config.denoiser_window is None else config.denoiser_window
    for method in ("learned", "score"):
        whole = denoise(flow, x, context, method=method)
        assert mx.array_equal(denoise(flow, x, context, method=method, window=5), whole)
        found = denoise(flow, x, context, method=method, window=3)
        first = denoise(flow, x[:, :3], context, method=method)
        assert mx.array_equal(found[:, :3], first)
        second = mx.concatenate([first[:, 3 - overlap :], x[:, 3 : 6 - overlap]], axis=1)
        expected = denoise(flow, second, context, method=method)[:, overlap:]
        assert close(found[:, 3 : 6 - overlap], expected)
    with pytest.raises(UsageError, match="expected 1|nothing would be denoised"):
        denoise(flow, x, context, window=config.denoiser_window or 0)


def test_score_is_the_gradient_of_the_likelihood(name):
    config = FAMILIES[name]
    flow, (x, context) = random_flow(config), example_clip(config)
    direction = mx.random.normal(x.shape, key=mx.random.key(9))
    step = 1e-2 * direction
    slope = (log_prob(flow, x + step, context) - log_prob(flow, x - step, context)) / 2e-2
    for checkpoint in (False, True):
        found = (score(flow, x, context, checkpoint) * direction).sum(axis=(1, 2, 3, 4))
        assert np.allclose(slope, found, rtol=2e-2, atol=0.5 * ROUNDING)


def test_shares_of_the_likelihood_add_up(name):
    config = FAMILIES[name]
    flow, (x, context) = random_flow(config), example_clip(config)
    parts = composition(flow, x, context)
    assert parts.shape == (2, grid_of(x, config).tokens, len(config.blocks) + 1)
    assert np.allclose(parts.sum(axis=(1, 2)), -np.array(log_prob(flow, x, context)), rtol=1e-5)


def test_long_clips_go_through_layers_a_few_places_at_a_time(name, monkeypatch):
    config = FAMILIES[name]
    flow, (z, context) = random_flow(config), example_clip(config, guided=True)
    given = z[:, :1]

    def everything() -> list[mx.array]:
        x = invert(flow, z, context, given=given, guidance=2.0, sampler="sliding")
        return [x, *flow(z, context[:2]), denoise(flow, z, context[:2])]

    whole = everything()
    monkeypatch.setattr(block_module, "LONG", 6)
    monkeypatch.setattr(block_module, "CHUNK", 4)
    monkeypatch.setattr(layers_module, "MANY", 5)
    scale = sensitivity(lambda n: invert(flow, n, context, guidance=2.0), z)
    for a, b in zip(whole, everything(), strict=True):
        assert close(a, b, 10 * scale)


def test_score_by_frame(name):
    """The first frames' likelihood is that of the clip that ends with them."""
    config = FAMILIES[name]
    flow, (x, context) = random_flow(config), example_clip(config)
    options = ScoreOptions(noise="none")
    (whole,) = score_pictures(flow, x[:1], context[:1], options)
    (short,) = score_pictures(flow, x[:1, :2], context[:1], options)
    assert whole.by_frame.shape == (1, 3)
    assert np.allclose(whole.by_frame.sum(axis=1), whole.mean, rtol=1e-6)
    assert np.allclose(whole.by_frame[:, :2], short.by_frame, rtol=1e-4)


def test_what_has_no_clips_says_so(name):
    config = FAMILIES[name]
    z, context = example_clip(config)
    deep = config.blocks[-1]
    for changes, message in (
        (dict(frames=1), "model of pictures"),
        (dict(text_channels=0, text_length=0), "no rotary axis for time"),
        (dict(blocks=(dataclasses.replace(deep, position="sequence"),)), "one line"),
        (dict(blocks=(dataclasses.replace(deep, position="table"),)), "learned table"),
    ):
        with pytest.raises(UsageError, match=message):
            grid_of(z, dataclasses.replace(config, **changes))
    with pytest.raises(ConfigError, match="local block"):
        dataclasses.replace(deep, local=True)


@pytest.mark.parametrize("guidance", [0.0, 2.0])
@pytest.mark.parametrize("window", [None, 3])
def test_encoding_with_given_frames(name, guidance, window):
    """The noise of the frames after the given ones, for a sampler that is given these."""
    config = FAMILIES[name]
    flow, (x, context) = random_flow(config), example_clip(config, 5, guided=guidance > 0)
    options = dict(guidance=guidance, window=window, context_frames=2, sampler="sequential")
    scale = sensitivity(
        lambda n: invert(flow, n, context, **options), encode(flow, x, context, **options).z
    )
    for count in (1, 4):
        code = encode(flow, x, context, given=count, **options)
        assert close(invert(flow, code.z, context, given=x[:, :count], **options), x, scale)
        if not guidance:
            assert close(code.z[:, :count], flow(x[:, :count], context)[0])
        if not guidance and window is None:  # log p(later frames | given frames)
            both = log_prob(flow, x, context) - log_prob(flow, x[:, :count], context)
            assert mx.allclose(code.log_prob, both, rtol=1e-4, atol=1e-2)
    for count in (-1, 5, 0.5):
        with pytest.raises(UsageError, match="given"):
            encode(flow, x, context, given=count, **options)
