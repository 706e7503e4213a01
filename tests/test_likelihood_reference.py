"""Scores and encodings of the reference cases: the published implementations' numbers."""

import math
import re

import mlx.core as mx
import numpy as np
import pytest
from reference_cases import STARFLOW, TARFLOW
from test_reference import (  # noqa: F401
    assert_met,
    channels_last,
    context_of,
    load_case,
)

from mlx_starflow.exact.encoding import encode
from mlx_starflow.exact.scoring import Score, surprise
from mlx_starflow.flow.grid import patchify


@pytest.mark.parametrize("name", STARFLOW)
def test_the_surprise_is_the_published_loss(name, load_case):  # noqa: F811
    flow, tensors, _ = load_case(name)
    x = channels_last(tensors["latent"])
    context = context_of(tensors, len(x), 0)
    nats = [surprise(flow, x[i : i + 1], context[i : i + 1]).sum() for i in range(len(x))]
    loss = np.mean(nats) / x[0].size - 0.5 * math.log(2 * math.pi)
    assert loss == pytest.approx(float(tensors["forward.loss"]), abs=1e-4)


@pytest.mark.parametrize("name", TARFLOW)
def test_the_surprise_is_the_published_bits_per_dimension(name, load_case):  # noqa: F811
    flow, tensors, _ = load_case(name)
    x = channels_last(tensors["image"])
    labels = mx.array(tensors["label"]).astype(mx.int32) if flow.config.num_classes else None
    for i, expected in enumerate(tensors["bits_per_dim"]):
        own = None if labels is None else labels[i : i + 1]
        nats = surprise(flow, x[i : i + 1], own)[:, 0]
        score = Score(-nats.sum(axis=1, keepdims=True), nats, None, x[0].size, "uniform", 0.0, 0)
        assert score.bits_per_dim[0] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("guidance", [0.0, 3.6])
@pytest.mark.parametrize("name", STARFLOW)
def test_published_samples_are_encoded_as_their_noise(name, guidance, load_case):  # noqa: F811
    flow, tensors, _ = load_case(name)
    sample = channels_last(tensors[f"sequential.cfg{guidance}.{len(flow.blocks)}"])
    context = context_of(tensors, len(sample), guidance)
    z = encode(flow, sample, context, guidance=guidance).z
    assert_met(z, np.moveaxis(tensors["noise"], 1, -1), 1e-3)


@pytest.mark.parametrize("name", TARFLOW)
def test_published_tarflow_samples_are_encoded_as_their_noise(name, load_case):  # noqa: F811
    flow, tensors, _ = load_case(name)
    labels = mx.array(tensors["label"]).astype(mx.int32) if flow.config.num_classes else None
    tried = 0
    for key, value in tensors.items():
        found = re.fullmatch(r"sequential\.cfg(\d+\.\d+)(\.\D+)?(\d\.\d)?", key)
        if found is None:
            continue
        guidance, kind, number = found.groups()
        options = {
            None: {},
            ".annealed": {"annealed": True},
            ".guide_b": {"guide": "b"},
            ".temp": {"attention_temperature": float(number or 1)},
        }[kind]
        z = encode(flow, channels_last(value), labels, guidance=float(guidance), **options).z
        assert_met(patchify(z, flow.config), tensors["noise"], 1e-3)
        tried += 1
    assert tried > 0
