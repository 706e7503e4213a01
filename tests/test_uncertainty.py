"""The numbers and maps of ``generate --uncertainty``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command import run  # noqa: F401

import mlx_starflow as sf
from mlx_starflow.editing.uncertainty import Uncertainty, uncertainty
from recipes.default_model.likelihood.doubt import table_of


@pytest.mark.parametrize("model", ["colours", "classes", "unconditional"])
def test_the_numbers_are_those_of_the_sample(model, request):
    pipe = sf.load(request.getfixturevalue(model))
    prompt = {"colours": "red", "classes": 2}.get(model)
    result = pipe.generate(prompt, seed=[4, 9], num_images=2, guidance=1.5 if prompt else 0.0)
    found = uncertainty(pipe, result)
    rows = pipe.prompt_rows(result.settings.prompts)
    log_p = np.array(sf.log_prob(pipe.flow, result.latents, rows.own(result.settings.prompts)))
    for one, expected in zip(found, log_p, strict=True):
        assert one.log_p == pytest.approx(expected, rel=1e-4)
        assert one.surprise.sum() == pytest.approx(-expected, rel=1e-4)
        assert (one.sigma > 0).all() and one.sigma.shape == one.surprise.shape
        assert 0 < one.last_digit < 1e-2
        assert (one.gain is None) == (prompt is None)
        assert one.residual is not None and one.residual < 1e-3


def test_a_number_that_knows_failures_ranks_them():
    """The function behind the recipe's table."""
    rng, failed = np.random.default_rng(0), np.arange(200) % 10 == 0
    found = [
        Uncertainty(np.full((2, 2), 1.0 + bad), rng.random((2, 2)), -1.0 - 5 * bad, rng.random(),
                    None, rng.random())
        for bad in failed
    ]  # fmt: skip
    rows = table_of(found, failed)
    assert rows["-log p"]["AUROC"] == rows["mean sigma"]["AUROC"] == 1.0
    assert abs(rows["last digit"]["AUROC"] - 0.5) < 3 * rows["last digit"]["standard error"]
    assert rows["-log p"]["failures"] == 20
    assert np.isnan(table_of(found, np.zeros(200, bool))["-log p"]["AUROC"])


def test_sigma_is_what_the_sampler_used(colours):
    """Noise and sample of the deep block alone give it: sigma = (u - b) / z, here by its mean
    logarithm, which the log-determinant of the guided map adds up."""
    pipe = sf.load(colours)
    result = pipe.generate("blue", seed=3, guidance=1.5, sampler="sequential")
    (one,) = uncertainty(pipe, result)
    guided = pipe.prompt_rows(["blue"]).for_sampling(["blue"], 1.5)
    whole = sf.encode(pipe.flow, result.latents, guided, guidance=1.5)
    x = pipe.flow.config
    _, shallow = zip(*list(pipe.flow.blockwise(result.latents, guided[:1]))[:2], strict=True)
    deep = whole.logdet.item() - sum(s.sum().item() for s in shallow)
    assert np.log(one.sigma).sum() * x.token_channels == pytest.approx(-deep, rel=1e-4)


def test_the_flag_writes_a_map_and_numbers(colours, run, tmp_path):  # noqa: F811
    made = run("generate", "red", "--seed", 5, "-m", colours, "--uncertainty", "--json", "--quiet")
    assert made.status == 0, made.err
    (record,) = json.loads(made.out)["images"]
    about = record["uncertainty"]
    assert set(about) >= {"log_p", "gain", "residual", "last_digit", "mean_sigma"}
    assert (tmp_path / about["map"]).is_file()
    assert run("generate", "-C", record["path"], "-m", colours, "--quiet").status == 0
