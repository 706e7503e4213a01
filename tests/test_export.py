"""Exports run from Python: the same numbers as the model's, and refusals before anything runs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from bundles import colours_bundle
from command import run  # noqa: F401
from families import CLIPS, FAMILIES, ROUNDING, example, random_flow

import mlx_starflow as sf
from mlx_starflow.config import ModelConfig
from mlx_starflow.errors import TextError, UsageError
from mlx_starflow.exact.noise import seeded_noise
from mlx_starflow.export import export
from mlx_starflow.export.functions import write_functions
from mlx_starflow.export.layout import layout_functions, learned_denoiser
from mlx_starflow.export.mathematics import begun, to_tokens
from mlx_starflow.export.one_function import picture_functions, score_functions
from mlx_starflow.export.plan import Plan
from mlx_starflow.export.steps import Steps
from mlx_starflow.export.stepwise import BlockPieces
from mlx_starflow.exported import stepwise
from mlx_starflow.exported.calls import Calls
from mlx_starflow.flow import Block
from mlx_starflow.generation.components import Components
from mlx_starflow.generation.settings import resolve
from mlx_starflow.sampling import SampleOptions
from mlx_starflow.sampling.conditional import Conditional

PICTURES = [name for name in FAMILIES if name not in CLIPS]
# To the bit on a CPU; elsewhere a few keys and a whole buffer are rounded differently.
NEAR, LATENT = (1e-6, 1e-5) if ROUNDING == 1 else (2e-4, 1e-3)


def plan_of(config, what: str, batch: int = 2, **changes) -> Plan:
    prompt = "" if config.text_channels else None
    guided = {"guidance": 1.5} if config.text_channels or config.num_classes else {}
    model = ModelConfig(config.model_type, name="test", components={})
    settings = resolve(model, config, 1, prompt, 0, sampler="sequential", **(guided | changes))
    side = config.grid_size * config.patch_size
    grid = random_flow(config).training_grid()
    return Plan(what, batch, settings, config, (batch, side, side, config.in_channels), grid, 0)


def inputs_of(config, plan: Plan):
    """Noise, the context as an export takes it, and as the library does: guided, and own."""
    z, context = example(config, plan.batch)
    if config.text_channels:
        null = mx.random.normal((1, *context.shape[1:]), key=mx.random.key(9))
        stacked = mx.concatenate([context, mx.repeat(null, plan.batch, axis=0)])
        return z, {"caption": context, "null": null}, stacked, context
    return z, {} if context is None else {"labels": context}, context, context


@pytest.mark.parametrize("name", PICTURES)
def test_exported_functions_have_the_numbers_of_the_model(name, tmp_path):
    config, flow = FAMILIES[name], random_flow(FAMILIES[name])
    plan = plan_of(config, "picture")
    z, given, context, own = inputs_of(config, plan)
    x = sf.invert(flow, z, context, sampler="sequential", guidance=plan.options.guidance)
    clean = sf.denoise(flow, x, own)

    entries = write_functions(tmp_path / "p.mlxfn", picture_functions(plan, flow, None))
    calls = Calls(tmp_path, entries)
    picture, latent = calls("picture", {**given, "noise": z})
    assert mx.abs(latent - x).max().item() <= NEAR * mx.abs(x).max().item()
    assert mx.abs(picture - clean).max().item() <= 10 * NEAR * mx.abs(clean).max().item()

    entries = write_functions(tmp_path / "s.mlxfn", score_functions(plan, flow))
    calls = Calls(tmp_path, entries)
    log_p = sf.log_prob(flow, x, own)
    found = calls("score", {**given, "latent": x})[0]
    assert mx.abs(found - log_p).max().item() <= 1e-5 * mx.abs(log_p).max().item()
    (noise,) = calls("encode", {**given, "latent": x})
    expected = sf.encode(flow, x, context, guidance=plan.options.guidance).z
    assert mx.abs(noise - expected).max().item() <= 10 * NEAR * mx.abs(expected).max().item()


@pytest.mark.parametrize("name", PICTURES)
def test_a_loop_over_pieces_gives_the_same(name, tmp_path):
    config, flow = FAMILIES[name], random_flow(FAMILIES[name])
    plan = plan_of(config, "steps")
    z, given, context, own = inputs_of(config, plan)
    functions = [*layout_functions(plan, flow), *learned_denoiser(plan, flow)]
    blocks = []
    for index in reversed(range(len(flow.blocks))):
        if isinstance(flow.blocks[index], Block):
            pieces = BlockPieces(plan, flow, index, flow.blocks[index])
            functions += pieces.functions(plan.settings.denoiser == "score")
            blocks.append(pieces.settings())
    calls = Calls(tmp_path, write_functions(tmp_path / "all.mlxfn", functions))
    data = {
        "sampling": {"blocks": blocks},
        "denoising": {"method": plan.settings.denoiser, "noise_std": plan.noise_std},
    }
    x = sf.invert(flow, z, context, sampler="sequential", guidance=plan.options.guidance)
    latent, worst = stepwise.sample(calls, data, z, given)
    assert worst <= 1e-5 * ROUNDING * max(1.0, mx.abs(x).max().item())
    assert mx.abs(latent - x).max().item() <= NEAR * mx.abs(x).max().item()
    clean = sf.denoise(flow, x, own)
    found = stepwise.denoised(calls, data, x, given)
    assert mx.abs(found - clean).max().item() <= 1e-5 * ROUNDING * mx.abs(clean).max().item()

    [deep, *_] = blocks
    (u,) = calls("layout.tokens", {"noise": z})
    v = stepwise.turned(u, deep)
    solved = mx.concatenate(list(stepwise.block_tokens(calls, deep, v, given)), axis=1)
    size = mx.abs(solved).max().item()
    assert stepwise.residual(calls, deep, solved, v, given) <= 1e-5 * ROUNDING * size
    assert stepwise.residual(calls, deep, 1.01 * solved, v, given) > 1e-3 * size


@pytest.mark.skipif(ROUNDING > 1, reason="to the bit on a CPU only")
def test_a_step_has_the_bits_of_the_sequential_sampler():
    """Also where the number of keys is no multiple of the width of a BLAS kernel."""
    wide = dict(channels=64, head_dim=64, mlp_channels=128)
    own = FAMILIES["released"]
    blocks = tuple(dataclasses.replace(b, **wide) for b in own.blocks)
    config = dataclasses.replace(own, blocks=blocks, grid_size=7)
    flow, plan = random_flow(config), plan_of(config, "steps")
    z, given, stacked, _ = inputs_of(config, plan)
    index = len(flow.blocks) - 1
    block, order = flow.blocks[index], flow.order(index, plan.grid)
    v = order.into(to_tokens(flow, z))
    sampler = Conditional(block, plan.grid, stacked, plan.batch, SampleOptions(guidance=1.5))
    steps, caches = Steps(plan, index, block), begun(block, plan, *plan.context(index, **given))
    previous = other = mx.zeros_like(v[:, :1])
    for t in range(plan.grid.tokens):
        number = mx.array(t)
        hidden = steps.start(other, number, None)
        for j, cache in enumerate(caches):
            hidden, caches[j] = steps.layer(j, hidden, steps.at(number), cache)
        (sigma, b), (sigma_2, b_2) = sampler.affine(previous, t), steps.finish(hidden, number)
        previous, other = (s * v[:, t : t + 1] + m for s, m in ((sigma, b), (sigma_2, b_2)))
        assert mx.array_equal(previous, other).item(), t


@pytest.fixture
def colours(few_tokens):
    return few_tokens


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model with as few tokens, wide enough for quantization in groups of 64."""
    return colours_bundle(tmp_path_factory.mktemp("bundles") / "wide", channels=64, grid_size=3)


def test_load_draws_and_scores_by_a_prompt(colours, coloured):
    pipe = sf.load(colours)
    noise = seeded_noise(sf.exported.load(coloured / "steps").data["noise"]["shape"][1:], [3])
    drawn = pipe.generate("green", noise=noise, sampler="sequential")
    for what in ("picture", "steps"):
        found = sf.exported.load(coloured / what).generate(np.array(noise), "green")
        assert mx.abs(found.latents - drawn.latents).max().item() <= LATENT
        difference = np.array(found.images[0]).astype(int) - np.array(drawn.images[0]).astype(int)
        assert np.abs(difference).max() <= 1
    score = sf.exported.load(coloured / "score")
    expected = sf.log_prob(pipe.flow, drawn.latents, pipe.encode_prompts(["green"]))
    found = score.score(drawn.latents, "green").item()
    assert found == pytest.approx(expected.item(), rel=1e-5)
    back = sf.exported.load(coloured / "picture").generate(
        score.encode(drawn.latents, "green"), "green"
    )
    assert mx.abs(back.latents - drawn.latents).max().item() <= 1e-3
    with pytest.raises(UsageError, match="no function 'picture'|no function 'layout"):
        score.generate(noise, "green")
    with pytest.raises(TextError, match="not a class"):
        score.score(drawn.latents, "mauve")
    with pytest.raises(UsageError, match="fixed shapes"):
        score.score(mx.zeros((1, 2, 2, 3)), "green")


THREADS = """
import sys, threading
import numpy as np
import mlx.core as mx
import mlx_starflow as sf

found = []

def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

def use():
    exported = sf.exported.load(sys.argv[1])
    noise = np.zeros(exported.data["noise"]["shape"], np.float32)
    try:
        found.append(float(exported.generate(noise, "red").latents.sum()))
    except sf.errors.UsageError as error:
        found.append(str(error))

if sys.argv[3] == "pipeline first":
    pipe = sf.load(sys.argv[2])
    pipe.generate("red", seed=1)
else:
    in_a_thread(lambda: mx.eval(mx.ones(2) + 1))
use()
in_a_thread(use)
print(*found, sep="\\n")
"""


def test_an_export_may_be_used_beside_a_pipeline_and_in_other_threads(colours, coloured):
    def lines(first: str) -> list[str]:
        line = [sys.executable, "-c", THREADS, str(coloured / "picture"), str(colours), first]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    here, elsewhere = lines("pipeline first")
    assert float(here) == float(elsewhere)
    for told in lines("another thread first"):  # nothing can be done, so it is said
        assert "the first to use MLX" in told


def test_quantized_weights_stay_quantized(wide, tmp_path):
    sizes = {}
    for quantize in (None, 4):
        components = Components(wide, "wide", quantize=quantize)
        made = export(components, tmp_path / str(quantize), "steps")
        sizes[quantize] = made.bytes
        exported = sf.exported.load(made.path)
        test = mx.load(str(made.path / exported.data["test"]["file"]))
        drawn = exported.generate(test["noise"], exported.data["test"]["prompt"])
        assert mx.abs(drawn.latents - test["latent"]).max().item() <= LATENT
    assert sizes[None] - sizes[4] > 150_000  # the rest is the graph


def test_a_batch_and_a_size_are_fixed(colours, tmp_path):
    components = Components(colours, "colours")
    made = export(components, tmp_path / "two", "picture", batch=2, aspect_ratio="3:2", guidance=0)
    exported = sf.exported.load(made.path)
    shape = exported.data["noise"]["shape"]
    assert shape[0] == 2 and shape[2] > shape[1]
    noise = seeded_noise(shape[1:], [1, 2])
    drawn = exported.generate(noise, ["red", "blue"])
    expected = sf.load(colours).generate(
        ["red", "blue"], noise=noise, guidance=0, aspect_ratio="3:2", sampler="sequential"
    )
    assert mx.abs(drawn.latents - expected.latents).max().item() <= LATENT


def test_an_autoencoder_decodes_in_tiles_of_the_host(sentences, tmp_path, monkeypatch):
    from mlx_starflow.export import decoder
    from mlx_starflow.generation.draw import decode

    monkeypatch.setattr(decoder, "SMALLEST", 2)
    components = Components(sentences, "sentences")
    made = export(components, tmp_path / "tiles", "steps", tile=3)
    exported = sf.exported.load(made.path)
    settings = exported.data["decoder"]
    assert settings["kind"] == "tiles" and len(settings["rows"]) == 2
    latent = seeded_noise(exported.data["noise"]["shape"][1:], [1])
    monkeypatch.setattr("mlx_starflow.vae.tiling.SMALLEST", 2)
    expected = components.vae.decode(latent, tile=3)
    found = stepwise.decoded(exported.calls, exported.data, latent)
    assert mx.abs(found - expected).max().item() <= 1e-5 * ROUNDING
    assert mx.abs(found - decode(components, latent)).max().item() > 1e-4


def test_prompts_are_tokenized_and_encoded_as_by_the_model(sentences, tmp_path):
    pipe = sf.load(sentences)
    made = export(Components(sentences, "sentences"), tmp_path / "text", "text")
    exported = sf.exported.load(made.path)
    for prompt in ("", "a fox", "a fox in the snow at night with many more words than fit"):
        found = exported.prompts.features(prompt)
        assert mx.abs(found - pipe.encode_prompts([prompt])).max().item() <= NEAR
