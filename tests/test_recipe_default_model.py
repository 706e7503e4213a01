"""The recipe of the embedded model, end to end at toy scale (needs PyTorch; slow)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mlx_starflow

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_from_nothing_to_a_bundle_that_draws(tmp_path):
    import mlx_starflow as sf
    from recipes.default_model.make import make
    from recipes.default_model.settings import toy

    make(tmp_path, toy())
    report = (tmp_path / "evaluate" / "report.json").read_text()
    assert '"prompts": 4' in report
    picture = sf.load(tmp_path / "bundle").generate("a fox in snow", seed=0).images[0]
    assert picture.size == (64, 64)
    again = (tmp_path / "log.txt").read_text().count("flow step")
    make(tmp_path, toy(), ("paint", "vae", "encode", "flow", "classifier"))
    assert (tmp_path / "log.txt").read_text().count("flow step") == again


def _train(folder, stops):
    from recipes.default_model.settings import toy
    from recipes.default_model.train import train_flow

    rng = np.random.default_rng(0)
    latents = rng.standard_normal((64, 4, 8, 8)).astype(np.float16)
    tokens = rng.integers(4, 40, (32, 2, 16)).astype(np.uint16)
    recipe = toy()
    for stop in stops:
        train_flow(
            folder,
            (latents, tokens),
            (latents[:16], tokens[:16]),
            50,
            replace(recipe.flow, save_seconds=1e9),
            recipe.text,
            stop_after=stop,
        )
    return torch.load(folder / "state.pt")


def test_a_resumed_flow_is_the_uninterrupted_one(tmp_path):
    whole = _train(tmp_path / "whole", [None])
    parts = _train(tmp_path / "parts", [4, 7, None])
    assert whole["step"] == parts["step"] == 12
    for a, b in zip(whole["average"], parts["average"], strict=True):
        assert torch.equal(a, b)


def test_a_resumed_autoencoder_is_the_uninterrupted_one(tmp_path):
    from recipes.default_model.settings import VAESettings
    from recipes.default_model.vae import fit_autoencoder

    settings = VAESettings(
        channels=(8, 8), latent_channels=2, norm_groups=4, images=24, crop=16, batch=4
    )
    pictures = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    for name, stops in (("whole", [None]), ("parts", [3, 8, None])):
        for stop in stops:
            fit_autoencoder(tmp_path / name, pictures, pictures[:4], settings, stop_after=stop)
    whole, parts = (torch.load(tmp_path / name / "state.pt") for name in ("whole", "parts"))
    assert whole["step"] == parts["step"]
    for name, value in whole["model"].items():
        assert torch.equal(value, parts["model"][name]), name


BUNDLE = Path(mlx_starflow.__file__).parent / "assets" / "default"


def test_a_grown_flow_knows_what_the_bundle_knows():
    from recipes.default_model.flow import STARFlow, log_prob
    from recipes.default_model.settings import full
    from recipes.default_model.warm_start import start_flow

    shape = replace(full().flow.shape, channel_size=_channels())
    text = torch.randn(2, shape.text_size, shape.text_width)
    x = torch.randn(2, shape.channel_size, 16, 16)
    flow, grown = STARFlow(shape), STARFlow(replace(shape, channel_size=shape.channel_size + 3))
    start_flow(flow, BUNDLE, shape.channel_size)
    start_flow(grown, BUNDLE, shape.channel_size)
    more = torch.zeros(2, 3, 16, 16)
    normal = torch.distributions.Normal(0, 1).log_prob(more).flatten(1).sum(1)
    with torch.no_grad():
        before = log_prob(flow, x, text)
        after = log_prob(grown, torch.cat([x, more], 1), text)
    torch.testing.assert_close(after, before + normal, rtol=1e-4, atol=1e-2)


def test_a_grown_autoencoder_gives_back_what_the_bundle_gives_back():
    from recipes.default_model.settings import full
    from recipes.default_model.vae import new_autoencoder
    from recipes.default_model.warm_start import start_autoencoder

    c, x = _channels(), torch.rand(1, 3, 64, 64) * 2 - 1
    models = []
    for channels in (c, c + 2):
        settings = replace(full().vae, latent_channels=channels)
        models.append(new_autoencoder(settings, 64))
        start_autoencoder(models[-1], BUNDLE, c)
    with torch.no_grad():
        old, new = (model.encode(x).latent_dist.mean for model in models)
        torch.testing.assert_close(new[:, :c], old, rtol=1e-4, atol=1e-3)
        new = torch.cat([new[:, :c], torch.zeros_like(new[:, c:])], 1)
        pictures = [m.decode(z).sample for m, z in zip(models, (old, new), strict=True)]
    torch.testing.assert_close(*pictures, rtol=1e-3, atol=1e-3)


def _channels() -> int:
    import json

    return json.loads((BUNDLE / "vae" / "config.json").read_text())["latent_channels"]


def test_the_loss_of_patch_statistics_asks_for_no_scene_but_for_sharpness():
    from recipes.default_model.vae_loss import patch_statistics

    def loss(y, x):
        return patch_statistics(y, x, torch.Generator().manual_seed(0)).item()

    x = (torch.rand(8, 3, 16, 16) > 0.5).float().repeat_interleave(4, 2).repeat_interleave(4, 3)
    soft = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    assert loss(x, x) == 0
    assert loss(x.flip(0, -1), x) < 0.5 * loss(soft, x)


def test_a_resumed_polish_is_the_uninterrupted_one(tmp_path):
    from recipes.default_model.polish import Latents, polish_decoder
    from recipes.default_model.settings import PolishSettings, VAESettings
    from recipes.default_model.vae import new_autoencoder

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    z = rng.standard_normal((6, 2, 16, 16)).astype(np.float32)
    kinds = {name: Latents(z, np.arange(6)) for name in ("clean", "denoised", "drawn")}
    settings = PolishSettings(steps=4, pictures=1, crop=16)
    states = []
    for name, stops in (("whole", [None]), ("parts", [1, 3, None])):
        for stop in stops:
            torch.manual_seed(1)
            small = VAESettings(channels=(8, 8), latent_channels=2, norm_groups=4)
            model = new_autoencoder(small, 32)
            encoder = model.encoder.conv_in.weight.detach().clone()
            polish_decoder(tmp_path / name, model, kinds, pictures, settings, stop_after=stop)
        assert torch.equal(model.encoder.conv_in.weight, encoder)
        states.append(torch.load(tmp_path / name / "state.pt")["model"])
    for a, b in zip(*(state.values() for state in states), strict=True):
        assert torch.equal(a, b)


def test_blurred_pictures_are_told_from_sharp_ones():
    from recipes.default_model.two_samples import told_apart

    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 2, (48, 16, 16, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8) * 255
    other = rng.integers(0, 2, (48, 16, 16, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8) * 255
    soft = np.mean([np.roll(sharp, step, 2) for step in range(4)], 0).astype(np.uint8)
    assert told_apart(soft, other, steps=80) > 0.9
    assert told_apart(sharp, other, steps=80) < 0.75


def test_a_decoder_put_into_a_bundle_changes_nothing_but_the_decoder(tmp_path):
    from safetensors.torch import load_file

    from recipes.default_model.polish_bundle import fitting_recipe, load_parts, write_decoder
    from recipes.default_model.settings import full

    model, _, _, tokenizer = load_parts(BUNDLE, fitting_recipe(BUNDLE, full()))
    assert tokenizer.encode("a fox in snow").ids[0] == 2
    with torch.no_grad():
        model.decoder.conv_in.weight.add_(1)
        model.encoder.conv_in.weight.add_(1)
    write_decoder(BUNDLE, model, tmp_path / "bundle")
    before, after = (
        load_file(b / "vae" / "model.safetensors") for b in (BUNDLE, tmp_path / "bundle")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder.conv_in.weight"}
    torch.testing.assert_close(
        after["decoder.conv_in.weight"], before["decoder.conv_in.weight"] + 1
    )
