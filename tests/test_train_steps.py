"""A step of a training: clipping, the learning rate, AdamW, accumulation and the moving average."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from families import FAMILIES, ROUNDING, random_flow
from teaching import pictures
from test_train_material import material, without_noise

from mlx_starflow.adapters import AdapterConfig, Base
from mlx_starflow.generation.components import Components
from mlx_starflow.training.division import Division
from mlx_starflow.training.gradient import gradient
from mlx_starflow.training.material import Batch
from mlx_starflow.training.options import TrainOptions
from mlx_starflow.training.trainer import Trainer


@pytest.fixture(scope="module")
def made(colours, tmp_path_factory):
    """Eight pictures, as for a model that is trained without noise."""
    return without_noise(material(colours, pictures(tmp_path_factory.mktemp("steps"))))


def trainer_of(bundle, made, kind=Trainer, **options) -> Trainer:
    """A training without noise and dropout, with a constant learning rate where none is asked."""
    plain = dict(batch_size=2, caption_dropout=0.0, lora_rank=2, warmup=0, final_rate=1.0)
    own = TrainOptions(**{**plain, **options})
    config = AdapterConfig(Base("x", "y"), own.fine_tune_type, rank=own.lora_rank)
    return kind(Components(bundle, "x").flow, config, own, made)


def test_gradients_are_clipped_to_their_common_norm():
    slopes = {"a": mx.array([[2.0, -4.0]]), "b": mx.array([4.0])}  # norm 6
    division = Division(random_flow(FAMILIES["released"]), AdapterConfig(Base("x", "y")), slopes)
    clipped = division.clipped(slopes, 1.5)
    assert np.allclose(clipped["a"], [[0.5, -1.0]], rtol=1e-5)
    assert np.allclose(clipped["b"], [1.0], rtol=1e-5)
    kept = division.clipped(slopes, 6.5)
    assert all(mx.array_equal(kept[name], slopes[name]) for name in slopes)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_learning_rate_rises_and_falls(colours, made, optimizer):
    """In a straight line in the warm-up, as half a cosine over all steps; Muon's is twice that."""
    trainer = trainer_of(
        colours, made, fine_tune_type="full", optimizer=optimizer, iters=5, learning_rate=1e-3,
        warmup=3, final_rate=0.1,
    )  # fmt: skip
    rates = []
    for _ in range(6):
        trainer.update()
        parts = getattr(trainer.optimizer, "optimizers", [trainer.optimizer])
        rates.append([part.learning_rate.item() for part in parts])

    def falls(step):
        return 1e-3 * (0.1 + 0.9 * (1 + math.cos(math.pi * step / 5)) / 2)

    found = [own[-1] for own in rates]
    assert found[0] == pytest.approx(1e-3 / 3)
    assert found[2] == pytest.approx(falls(2)) and found[4] == pytest.approx(falls(4))
    assert found[5] == pytest.approx(1e-4)
    if optimizer == "muon":
        assert [own[0] for own in rates] == pytest.approx([2 * rate for rate in found])


class Louder(Trainer):
    """A training whose batches grow, and their gradients with them."""

    def batch(self, number: int) -> Batch:
        found = super().batch(number)
        return Batch((1 + 2 * self.step) * found.x, found.context)


def test_adapters_move_by_adamw(colours, made):
    """Against the formula with clipping, bias correction and weight decay."""
    rate, decay, clip = 1e-2, 0.1, 0.1
    trainer = trainer_of(
        colours, made, Louder, learning_rate=rate, weight_decay=decay, max_grad_norm=clip
    )  # fmt: skip
    first = {n: np.zeros(a.shape) for n, a in trainer.arrays.items()}
    second = dict(first)
    norms = []
    for step in (1, 2, 3):
        given, before = trainer.batch(0), trainer.arrays
        _, slopes = gradient(trainer.trained, before, given.x, given.context)
        slopes = {n: np.array(a) / (2 * made.numbers) for n, a in slopes.items()}
        norms.append(math.sqrt(sum(np.square(a).sum() for a in slopes.values())))
        trainer.update()
        for name, array in trainer.arrays.items():
            slope, old = min(1.0, clip / norms[-1]) * slopes[name], np.array(before[name])
            m = first[name] = 0.9 * first[name] + 0.1 * slope
            v = second[name] = 0.999 * second[name] + 0.001 * slope**2
            move = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            wanted = old - rate * (move + decay * old)
            assert np.abs(np.array(array) - wanted).max() < 1e-4 * ROUNDING * rate, name
    assert norms[0] < clip < norms[1] < norms[2]


class Descent(Trainer):
    """Plain gradient descent, which shows the size of a gradient."""

    def _optimizer(self) -> optim.Optimizer:
        return optim.SGD(0.1)


def test_two_passes_are_one_of_twice_the_size(colours, made):
    """The mean of their gradients, on the same pictures."""
    found = []
    for size, passes in ((2, 1), (1, 2)):
        trainer = trainer_of(
            colours, made, Descent, fine_tune_type="full", batch_size=size,
            grad_accumulation_steps=passes, max_grad_norm=0.0,
        )  # fmt: skip
        bits = [trainer.update() for _ in range(3)]
        found.append((bits, trainer.arrays))
    (whole, arrays), (halves, others) = found
    assert whole == pytest.approx(halves, abs=1e-6 * ROUNDING)
    for name, array in arrays.items():
        assert mx.abs(array - others[name]).max().item() < 1e-6 * ROUNDING, name


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_average_moves_as_it_should(colours, made, kind):
    """Its decay begins at 1/11, 2/12, ... and stays at that of the option, here from step 2 on."""
    trainer = trainer_of(colours, made, fine_tune_type=kind, ema=0.15, learning_rate=1e-2)
    wanted = {n: np.array(a) for n, a in trainer.arrays.items()}
    for decay in (1 / 11, 0.15, 0.15):
        trainer.update()
        wanted = {n: decay * a + (1 - decay) * np.array(trainer.arrays[n])
                  for n, a in wanted.items()}  # fmt: skip
        for name, array in trainer.kept().items():
            assert np.allclose(np.array(array), wanted[name], rtol=0, atol=1e-6), name
    assert any(mx.abs(trainer.average[n] - a).max() > 1e-3 for n, a in trainer.arrays.items())
