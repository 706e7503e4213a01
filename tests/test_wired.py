"""macOS's wired limit is raised around every kind of work and put back behind it. A limit needs no
Mac: only the calls that ask for one and set it are replaced here."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

import mlx_starflow as sf
from mlx_starflow.device import wired as wired_module
from mlx_starflow.editing import edit, interpolate, selection, uncertainty, vary
from mlx_starflow.editing.inputs import latents_of
from mlx_starflow.flow.layers import Layer
from mlx_starflow.text.t5 import T5Encoder
from mlx_starflow.vae import AutoencoderKL
from mlx_starflow.watch import measure

BEFORE, RAISED = 7, 1000


@pytest.fixture
def limit(monkeypatch) -> list[int]:
    """The limit as it is, and after that what it was while models were at work."""
    state = [BEFORE]

    def set_limit(size: int) -> int:
        old, state[0] = state[0], size
        return old

    facts = {"max_recommended_working_set_size": RAISED}
    monkeypatch.setattr(wired_module, "has_metal", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda *_: facts)
    monkeypatch.setattr(mx, "set_wired_limit", set_limit)

    def watch(owner: type, name: str) -> None:
        method = getattr(owner, name)

        def watched(*arguments, **options):
            state.append(state[0])
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in (
        (Layer, "__call__"), (T5Encoder, "__call__"), (AutoencoderKL, "encode"),
        (AutoencoderKL, "decode"),
    ):  # fmt: skip
        watch(owner, name)
    return state


@pytest.fixture(scope="module")
def given(sentences) -> sf.Result:
    """A picture to work on, drawn before the calls are replaced."""
    with sf.load(sentences) as pipe:
        return pipe.generate("a fox", seed=1, num_images=2, denoise=False)


def stream(pipe, given):
    list(pipe.stream("a fox", seed=1, previews=True))


def stopped(pipe, given):
    events = pipe.stream("a fox", seed=1)
    next(e for e in events if type(e).__name__.startswith("Block"))
    events.close()
    pipe.run(lambda: None)  # behind the end of the work


def failed(pipe, given):
    noise = mx.full(given.latents[:1].shape, float("nan"))
    with pytest.raises(sf.StarflowError):
        pipe.generate("a fox", noise=noise)


def edited(pipe, given):
    image = given.images[0]
    mask = np.zeros((image.height, image.width), bool)
    mask[: image.height // 2] = True
    edit.edit(pipe, edit.EditRequest(image, mask, "a hen", (1, 2), 2.0))


def scored(pipe, given):
    x = given.latents[:1]
    sf.score_pictures(pipe.flow, x, pipe.encode_prompts(["a fox", ""]))


def encoded(pipe, given):
    image = given.images[0]
    made = vary.encode_pictures(pipe, [image], ["a fox"], guidance=2.0, noise_seed=3)
    x = sf.invert(pipe.flow, made.z, made.context, guidance=2.0)
    vary.finished(pipe, x, made.own, True)


def between(pipe, given):
    ends = interpolate.seeded_ends(pipe, (1, 2), ("a fox", "a hen"), 2.0)
    list(interpolate.frames_between(pipe, ends, 3, True))


def judged(pipe, given):
    selection.advantages(pipe, given)
    uncertainty.uncertainty(pipe, given)


def compressed(pipe, given):
    image = given.images[0]
    sf.codec.decompress(pipe, sf.codec.compress(pipe, image))


def measured(pipe, given):
    image = given.images[0]
    measure.measure(pipe, [image], pipe.encode_prompts([""]), 1, 0)


def infilled(pipe, given):
    x, context = given.latents[:1], pipe.encode_prompts(["a fox"])
    grid = pipe.flow.training_grid()
    free = mx.ones((grid.height, grid.width), dtype=mx.bool_)
    sf.infill(pipe.flow, x, mx.zeros_like(x), free, context)


WORK = {
    "generate": lambda pipe, given: pipe.generate("a fox", seed=1, sampler="sliding"),
    "stream": stream,
    "stream that is closed": stopped,
    "generate that fails": failed,
    "prompts": lambda pipe, given: pipe.encode_prompts(["a fox"]),
    "decode": lambda pipe, given: pipe.decode(given.latents[:1]),
    "preview": lambda pipe, given: pipe.preview(given.latents[:1]),
    "latents": lambda pipe, given: latents_of(pipe, given.images),
    "denoise": lambda pipe, given: sf.denoise(
        pipe.flow, given.latents[:1], pipe.encode_prompts(["a fox"])
    ),
    "edit": edited,
    "score": scored,
    "encode, invert": encoded,
    "interpolate": between,
    "advantage, uncertainty": judged,
    "compress, decompress": compressed,
    "watch": measured,
    "infill": infilled,
}


@pytest.mark.parametrize("work", WORK)
def test_the_limit_is_raised_around_the_work_and_put_back(work, given, limit, sentences):
    with sf.load(sentences) as pipe:
        WORK[work](pipe, given)
        pipe.run(lambda: None)  # behind what is done after the last result was given
        assert limit[0] == BEFORE
    assert set(limit[1:]) == {RAISED}
