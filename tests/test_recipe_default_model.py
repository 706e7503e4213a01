"""The recipe of the embedded model, end to end at toy scale (needs PyTorch; slow)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

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
