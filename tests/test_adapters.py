"""Adapters on every command that loads a flow: used, recorded, replayed, refused and taken off."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from families import ROUNDING
from PIL import Image
from teaching import adapter

import mlx_starflow as sf
from mlx_starflow.adapters.files import CONFIG, WEIGHTS
from mlx_starflow.errors import ConfigError, WeightsError
from mlx_starflow.pictures.metadata import read_metadata


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def style(colours, tmp_path):
    return adapter(colours, tmp_path / "style")


def test_scales_from_nothing_to_all(colours, style):
    """Scale 0 is the model itself; the change of the weights grows with the scale."""
    with sf.load(colours) as plain, sf.load(colours, adapters=[(style, 0.0)]) as none:
        x, context = plain.generate("red", seed=1).latents, plain.encode_prompts(["red"])
        before = plain.flow(x, context)[0]
        assert (before == none.flow(x, context)[0]).all().item()
        moved = []
        for scale in (0.25, 0.5, 1.0):
            none.set_adapters([(style, scale)])
            moved.append(mx.abs(none.flow(x, context)[0] - before).mean().item())
        assert 0 < moved[0] < moved[1] < moved[2]


def test_several_add_up_and_come_off(colours, style, tmp_path):
    """A hot swap does not read the base again, and leaves no trace."""
    other = adapter(colours, tmp_path / "other", seed=9, fine_tune_type="dora", keys=("mlp.up",))
    with sf.load(colours) as pipe:
        flow = pipe.flow
        x, context = pipe.generate("red", seed=1).latents, pipe.encode_prompts(["red"])
        before = flow(x, context)[0]
        pipe.set_adapters([style, (other, 0.5)])
        assert pipe.flow is flow
        both = flow(x, context)[0]
        pipe.set_adapters([(other, 0.5), style])
        swapped = flow(x, context)[0]
        assert mx.abs(both - swapped).max().item() < 1e-4 * ROUNDING
        assert mx.abs(both - before).max().item() > 1e-2
        pipe.set_adapters([])
        assert (flow(x, context)[0] == before).all().item()


def test_a_compiled_sampler_sees_a_swap(colours, style):
    """Compiled steps hold weights as constants, and are dropped with the adapter they hold."""
    with sf.load(colours) as pipe:
        noise = mx.random.normal((1, 12, 12, 3), key=mx.random.key(2))
        context = pipe.encode_prompts(["red"])
        mx.eval(noise, context)  # unevaluated arrays are tied to this thread

        def sample():
            x = sf.invert(pipe.flow, noise, context, sampler="sequential", compile=True)
            return np.array(x)

        before = pipe.run(sample)
        pipe.set_adapters([style])
        changed = pipe.run(sample)
        pipe.set_adapters([])
        assert (pipe.run(sample) == before).all()
        assert np.abs(changed - before).max() > 1e-2


def test_a_picture_names_its_adapters_and_is_drawn_again(run, colours, style):  # noqa: F811
    made = run("generate", "red", "-m", colours, "--seed", 1, "--lora", style, 0.5, "-o", "a.png")
    assert made.status == 0, made.err
    stored = read_metadata("a.png")
    assert [(a["path"], a["scale"]) for a in stored["adapters"]] == [(str(style), 0.5)]
    assert run("generate", "-C", "a.png", "-o", "b.png").status == 0
    assert (pixels("a.png") == pixels("b.png")).all()
    assert run("generate", "red", "-m", colours, "--seed", 1, "-o", "c.png").status == 0
    assert not (pixels("a.png") == pixels("c.png")).all()
    again = run("generate", "-C", "a.png", "--lora", style, 0, "-o", "d.png")
    assert again.status == 0, again.err
    assert (pixels("c.png") == pixels("d.png")).all()


@pytest.mark.parametrize("change", ["gone", "other", "elsewhere"])
def test_a_picture_chooses_no_other_adapter(run, colours, style, tmp_path, change):  # noqa: F811
    """Settings in a picture load only the very adapter that they name."""
    run("generate", "red", "-m", colours, "--seed", 1, "--lora", style, "-o", "a.png")
    if change == "gone":
        (style / WEIGHTS).unlink()
    elif change == "other":
        (style / WEIGHTS).unlink()
        adapter(colours, style, seed=3)
    else:
        stored = read_metadata("a.png")
        stored["adapters"][0]["path"] = "/dev/zero"
        (tmp_path / "a.json").write_text(json.dumps(stored))
    replayed = run("generate", "-C", "a.json" if change == "elsewhere" else "a.png")
    assert replayed.status == 2
    assert "adapter" in replayed.err and "--lora" in replayed.err


def test_one_for_another_model_is_refused_by_name(run, colours, wide, style):  # noqa: F811
    refused = run("generate", "red", "-m", wide, "--adapter-path", style)
    assert refused.status == 1
    assert "was made for the model 'colours'" in refused.err
    with sf.load(colours, adapters=[style]) as pipe, pytest.raises(ConfigError):
        pipe.set_adapters([_foreign(style)])


def _foreign(style):
    """The adapter with another base."""
    about = json.loads((style / CONFIG).read_text())
    about["base"] = {"name": "another", "weights": "ff", "source": ""}
    (style / CONFIG).write_text(json.dumps(about))
    return style


@pytest.mark.parametrize("change", ["missing", "shape", "nan", "extra", "torn", "pickle"])
def test_damaged_files_are_named(colours, style, change):
    arrays = mx.load(str(style / WEIGHTS))
    name = sorted(arrays)[0]
    if change == "missing":
        del arrays[name]
    elif change == "shape":
        arrays[name] = arrays[name][:1]
    elif change == "nan":
        arrays[name] = mx.full(arrays[name].shape, float("nan"))
    elif change == "extra":
        arrays["blocks.9.proj_in.lora_a"] = arrays[name]
    mx.save_safetensors(str(style / WEIGHTS), arrays)
    if change == "torn":
        (style / WEIGHTS).write_bytes((style / WEIGHTS).read_bytes()[:-10])
    if change == "pickle":
        (style / WEIGHTS).write_bytes(b"\x80\x04K\x01.")
    with (
        pytest.raises(WeightsError, match="adapters.safetensors"),
        sf.load(colours, adapters=[style]) as pipe,
    ):
        _ = pipe.flow


def test_every_command_takes_one(run, colours, style):  # noqa: F811
    model = ("-m", colours, "--lora", style, 0.7)
    assert run("generate", "red", *model, "--seed", 1, "-o", "a.png").status == 0
    plain = json.loads(run("score", "a.png", "-m", colours, "--json").out)
    mine = json.loads(run("score", "a.png", *model, "--json").out)
    assert plain["images"][0]["log_p_null"] != mine["images"][0]["log_p_null"]
    assert run("encode", "a.png", "--prompt", "red", *model, "-o", "n.safetensors").status == 0
    assert run("decode", "n.safetensors", "-o", "b.png").status == 0
    assert read_metadata("b.png")["adapters"][0]["scale"] == 0.7
    for line in (
        ("vary", "a.png", "--prompt", "red", *model, "-o", "v.png"),
        ("edit", "a.png", "--box", "2,2,6,6", "--prompt", "red", *model, "-o", "e.png"),
        ("interpolate", "--seed", 1, "--seed", 2, "--frames", 3, "--prompt", "red", *model),
    ):
        assert run(*line).status == 0, line
    assert read_metadata("e.png")["adapters"][0]["path"] == str(style)


@pytest.fixture
def small(few_tokens, tmp_path):
    """Arguments for a model without and with an adapter."""
    plain = ("-m", few_tokens)
    return plain, (*plain, "--lora", adapter(few_tokens, tmp_path / "small"))


def noise(path, seed: int = 0):
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3))
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def test_compressing_with_one(run, small, tmp_path):  # noqa: F811
    """A file of one's own: other bytes, and only the same model and adapter read it."""
    pytest.importorskip("constriction")
    picture = noise(tmp_path / "a.png")
    made = [run("compress", picture, "-o", f"{i}.flow", "--json", *m) for i, m in enumerate(small)]
    assert not any(m.status for m in made), made
    plain, mine = (json.loads(m.out) for m in made)
    assert plain["ideal_bytes"] != mine["ideal_bytes"]
    refused = run("decompress", "1.flow", "-o", "b.png", *small[0])
    assert refused.status == 1 and "1.flow" in refused.err and not (tmp_path / "b.png").exists()
    back = run("decompress", "1.flow", "-o", "b.png", *small[1])
    assert back.status == 0, back.err
    off = np.square(pixels("b.png").astype(float) - pixels(picture)).mean()
    assert 10 * np.log10(255**2 / off) == pytest.approx(mine["psnr"], abs=1e-3)


def test_watching_with_one(run, small, tmp_path):  # noqa: F811
    """A reference is of model and adapter together."""
    (tmp_path / "usual").mkdir()
    for i in range(20):
        noise(tmp_path / "usual" / f"{i:02d}.png", i)
    for name, model in zip(("plain", "mine"), small, strict=True):
        made = run("watch", "fit", "usual", "-o", f"{name}.json", "--draws", 1, *model)
        assert made.status == 0, made.err
    found = {}
    for name, model in zip(("plain", "mine"), small, strict=True):
        checked = run("watch", "check", "usual/03.png", "-r", f"{name}.json", "--json", *model)
        assert checked.status in (0, 3), checked.err
        found[name] = json.loads(checked.out)["statistics"]
    assert found["plain"] != found["mine"]
    refused = run("watch", "check", "usual/03.png", "-r", "mine.json", *small[0])
    assert refused.status == 2 and "was made with the weights" in refused.err


def test_exporting_with_one(run, small):  # noqa: F811
    """The functions are those of the model with the adapter."""
    (_, bundle, _, style) = small[1]
    made = run("export", bundle, "-o", "out", "--what", "score", "--lora", style, 2)
    assert made.status == 0, made.err
    x = mx.random.normal((1, 6, 6, 3), key=mx.random.key(1))
    found = sf.exported.load("out").score(x, "red").item()
    with sf.load(bundle, adapters=[(style, 2.0)]) as pipe:
        context = pipe.encode_prompts(["red"])
        assert found == pytest.approx(sf.log_prob(pipe.flow, x, context).item(), rel=1e-5)
        pipe.set_adapters([])
        assert found != pytest.approx(sf.log_prob(pipe.flow, x, context).item(), rel=1e-2)


def test_measuring_with_one(run, small):  # noqa: F811
    common = ("--samplers", "sliding", "--repeat", 1, "--prompts", 1, "--json")
    made = [run("benchmark", *common, *model) for model in small]
    assert not any(m.status for m in made), made
    plain, mine = (json.loads(m.out)["samplers"][0]["residual"] for m in made)
    assert plain != mine


def test_only_safetensors_are_read(run, colours, style):  # noqa: F811
    (style / "x.pt").write_bytes((style / WEIGHTS).read_bytes())
    refused = run("generate", "red", "-m", colours, "--lora", style / "x.pt")
    assert refused.status == 1
    assert "adapters are read from .safetensors files only" in refused.err


def test_models_lists_adapters_of_this_directory(run, style):  # noqa: F811
    rows = json.loads(run("models", "list", "--json").out)
    assert any(r["name"] == "style" and "lora" in r["description"] for r in rows)
