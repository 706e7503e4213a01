"""The measurements of the deep block in docs/sampling.md still run."""

import pytest

from mlx_starflow.hub.locate import EMBEDDED
from recipes.default_model.deep_block import Bench


@pytest.mark.parametrize("guess", ["neighbour", "row"])
def test_other_first_guesses_end_at_the_same_sample(guess):
    bench = Bench(EMBEDDED["default"], 1, None)
    reads, _, error = bench.slide(32, 2e-5, guess=guess).split(" | ")
    assert float(reads) < 64 and float(error) < 5e-3
