"""The pipeline as applications use it: events, threads, cancelling, repeatability."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest

import mlx_starflow as sf
from mlx_starflow.errors import Cancelled, OutOfMemoryError, UsageError
from mlx_starflow.generation import events as e
from mlx_starflow.generation import memory

PROMPTS = ("red", "green", "blue", "yellow", "")


@pytest.fixture(scope="module")
def pipe(colours):
    with sf.load(colours) as pipe:
        yield pipe


def same(one, two) -> bool:
    return bool(mx.array_equal(one.latents, two.latents).item()) and all(
        a.tobytes() == b.tobytes() for a, b in zip(one.images, two.images, strict=True)
    )


def test_events_come_in_order(pipe):
    found = list(pipe.stream("red", seed=1, previews=True))
    names = [type(event).__name__ for event in found if not isinstance(event, e.BlockProgress)]
    blocks = ["BlockDone", "Preview"] * 3
    while "Loading" in names:
        names.remove("Loading")
    assert names == [
        "Started", "TextEncoded", *blocks,
        "Entering", "Denoised", "Entering", "Decoded", "Finished",
    ]  # fmt: skip
    started, result = found[0], found[-1].result
    assert [phase.name for phase in started.phases] == [
        "text", "deep block", "shallow 2", "shallow 1", "denoise", "decode",
    ]  # fmt: skip
    assert sum(phase.share for phase in started.phases) == pytest.approx(1)
    assert {event.phase for event in found} <= {phase.name for phase in started.phases}
    assert [r.block for r in result.reports] == [2, 1, 0]
    previews = [event.latents for event in found if isinstance(event, e.Preview)]
    assert mx.array_equal(previews[-1], result.latents)


def test_progress_is_told_while_it_happens(pipe, monkeypatch):
    monkeypatch.setattr("mlx_starflow.pipeline.EVENTS_PER_SECOND", 1e9)
    steps = [
        event
        for event in pipe.stream("red", seed=1, sampler="sequential")
        if isinstance(event, e.BlockProgress)
    ]
    for block in (2, 1, 0):
        done = [step.tokens_done for step in steps if step.block == block]
        assert done == list(range(1, 37))
    assert {step.tokens_total for step in steps} == {36}


def test_generate_is_the_last_event_of_stream(pipe):
    *_, finished = pipe.stream("red", seed=5)
    assert same(finished.result, pipe.generate("red", seed=5))


def test_the_interface_has_the_modules(pipe):
    context = pipe.encode_prompts(["red", ""])
    assert context.shape == (2, 1, 5) and context.dtype == mx.float32
    x = mx.random.normal((2, 12, 12, 3), key=mx.random.key(1))
    z, logdet = pipe.flow(x, context)
    assert z.shape == x.shape and logdet.shape == (2,)
    assert pipe.vae is None and pipe.config.name == "colours"


@pytest.mark.parametrize("name", ["colours", "classes", "unconditional"])
def test_a_seed_is_its_picture_alone_and_in_a_batch(request, name):
    """The noise is the same to the bit; the rest is up to the rounding of products, whose last
    bits depend on how many rows they have."""
    prompt = {"colours": "red", "classes": "2", "unconditional": None}[name]
    with sf.load(request.getfixturevalue(name)) as pipe:
        batch = pipe.generate(prompt, seed=11, num_images=3)
        assert batch.settings.seeds == (11, 12, 13)
        for i, seed in enumerate(batch.settings.seeds):
            alone = pipe.generate(prompt, seed=seed)
            assert mx.array_equal(alone.noise[0], batch.noise[i])
            assert np.abs(np.array(alone.latents[0] - batch.latents[i])).max() < 1e-4
            one, two = (np.asarray(p, dtype=int) for p in (alone.images[0], batch.images[i]))
            assert np.abs(one - two).max() <= 1
        assert same(batch, pipe.generate(prompt, seed=11, num_images=3))


def test_the_null_caption_does_not_depend_on_the_batch(pipe):
    mixed = pipe.generate(["red", "blue"], seed=[3, 4])
    assert np.allclose(
        np.array(mixed.latents[1]), np.array(pipe.generate("blue", seed=4).latents[0]), atol=1e-4
    )


def test_no_global_random_state(pipe):
    mx.random.seed(5)
    expected = mx.random.normal((3,)).tolist()
    mx.random.seed(5)
    pipe.generate("red", seed=1)
    assert mx.random.normal((3,)).tolist() == expected
    mx.random.seed(77)
    one = pipe.generate("red", seed=1)
    mx.random.seed(78)
    assert same(one, pipe.generate("red", seed=1))


def test_a_random_seed_is_in_the_result(pipe):
    one = pipe.generate("red")
    assert one.settings.seeds != pipe.generate("red").settings.seeds
    assert same(one, pipe.generate("red", seed=one.settings.seeds[0]))


@pytest.mark.parametrize("each", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_threads_on_one_pipeline_and_on_their_own(few_tokens, each):
    """8 threads of several pictures: those that one thread draws, one after another."""
    jobs = [(PROMPTS[(i + seed) % 5], seed) for seed in range(8) for i in range(each)]
    with sf.load(few_tokens) as pipe:
        expected = [pipe.generate(prompt, seed=seed) for prompt, seed in jobs]

        def shared(job):
            return pipe.generate(job[0], seed=job[1])

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(shared, jobs))
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))

    def separate(seed):
        with sf.load(few_tokens) as own:
            return [own.generate(prompt, seed=s) for prompt, s in jobs if s == seed]

    with ThreadPoolExecutor(8) as pool:
        found = [result for row in pool.map(separate, range(8)) for result in row]
    assert all(same(a, b) for a, b in zip(expected, found, strict=True))


def test_a_stream_may_be_advanced_from_changing_threads(pipe):
    """As asyncio.to_thread does it."""

    async def draw(seed):
        stream = pipe.stream("red", seed=seed)
        while not isinstance(event := await asyncio.to_thread(next, stream), e.Finished):
            await asyncio.sleep(0)
        return event.result

    async def both():
        return await asyncio.gather(draw(1), draw(2))

    for seed, result in zip((1, 2), asyncio.run(both()), strict=True):
        assert same(result, pipe.generate("red", seed=seed))


def test_drawing_while_a_stream_is_open(pipe):
    stream = pipe.stream("red", seed=1)
    next(stream)
    assert same(pipe.generate("blue", seed=2), pipe.generate("blue", seed=2))
    *_, finished = stream
    assert same(finished.result, pipe.generate("red", seed=1))


def test_cancelling_at_random_moments_leaves_a_usable_pipeline(colours, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moments = random.Random(3)
    with sf.load(colours) as pipe:
        expected = pipe.generate("red", seed=1)
        length = sum(1 for _ in pipe.stream("red", seed=1, sampler="sequential"))
        for attempt in range(8):
            if attempt % 2:  # by closing the stream
                stream = pipe.stream("red", seed=1, sampler="sequential")
                for _ in range(moments.randrange(length)):
                    next(stream, None)  # how many there are depends on the clock
                stream.close()
            else:  # by a flag from another thread
                cancel = threading.Event()
                timer = threading.Timer(moments.uniform(0, 0.1), cancel.set)
                timer.start()
                with contextlib.suppress(Cancelled):
                    pipe.generate("red", seed=1, sampler="sequential", cancel=cancel)
                timer.join()
            if attempt % 4 == 3:
                assert same(expected, pipe.generate("red", seed=1))
    assert not list(tmp_path.iterdir())


def test_a_flag_that_is_set_cancels_at_the_next_step(pipe):
    cancel = threading.Event()
    stream = pipe.stream("red", seed=1, cancel=cancel)
    next(stream)
    cancel.set()
    with pytest.raises(Cancelled):
        next(stream)


def test_a_closed_pipeline_says_so(colours):
    with sf.load(colours) as pipe:
        pipe.generate("red", seed=1)
    with pytest.raises(UsageError, match="closed"):
        pipe.generate("red", seed=1)
    pipe.close()  # twice is fine


def test_low_ram_drops_what_is_done_and_draws_the_same(colours, pipe):
    with sf.load(colours, low_ram=True) as small:
        first = small.generate("red", seed=1)
        assert not any(small._components.is_loaded(c) for c in ("flow", "text_encoder"))
        assert same(first, pipe.generate("red", seed=1))
        assert same(first, small.generate("red", seed=1))


def test_an_error_in_the_work_reaches_the_caller(pipe, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("in the worker")

    with monkeypatch.context() as patch:
        patch.setattr("mlx_starflow.generation.draw.denoise", fails)
        with pytest.raises(ZeroDivisionError, match="in the worker"):
            pipe.generate("red", seed=1)
    assert pipe.generate("red", seed=1).images


EXITS = {
    "drawn": "pipe.generate('red', seed=1)",
    "closed": "pipe.generate('red', seed=1); pipe.close()",
    "half way": "stream = pipe.stream('red', seed=1); next(stream); next(stream)",
    "forgotten": "pipe.generate('red', seed=1); del pipe",
    "in a thread": "import threading; t = threading.Thread(target=lambda: pipe.generate('red', "
    "seed=1)); t.start(); t.join()",
}


@pytest.mark.parametrize(
    "how",
    [pytest.param(h, marks=pytest.mark.slow if h in ("closed", "forgotten") else ())
     for h in EXITS],
)  # fmt: skip
def test_a_program_ends_in_peace(few_tokens, how):
    """MLX aborts a process if threads end without clearing their streams."""
    program = f"import mlx_starflow as sf; pipe = sf.load({str(few_tokens)!r}); {EXITS[how]}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_short_memory_is_said_before_anything_is_loaded(sentences, monkeypatch):
    expected = memory.device_budget()
    assert expected.bytes <= expected.physical
    with sf.load(sentences) as pipe:
        need = memory.memory_need(pipe._components, pipe.settings("a fox", 1))
        parts = memory.Budget(need.peak(True), 10**12, "a small device")
        monkeypatch.setattr(memory, "device_budget", lambda: parts)
        started, *_, finished = pipe.stream("a fox", seed=1)
        assert "a small device" in started.warnings[0] and "--low-ram" in started.warnings[0]
        assert finished.result.metadata["low_ram"]
        assert finished.result.warnings == started.warnings
        nothing = memory.Budget(1000, 1000, "a tiny device")
        monkeypatch.setattr(memory, "device_budget", lambda: nothing)
        with pytest.raises(OutOfMemoryError, match="a tiny device"):
            pipe.generate("a fox", seed=1)
