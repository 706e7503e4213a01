"""The map of surprise: the largest value is the lightest colour, at its place, with a scale."""

import numpy as np
import pytest
from PIL import Image

from mlx_starflow.errors import UsageError
from mlx_starflow.pictures.heatmap import colours, heatmap


def test_colours_grow_lighter_with_the_value():
    light = colours(np.linspace(0, 1, 50)) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(light) > 0).all()
    assert np.array_equal(colours(np.array([-1.0, 2.0])), colours(np.array([0.0, 1.0])))


def test_the_largest_value_is_lightest_where_it_is():
    values = np.zeros((4, 4))
    values[1, 2] = 5.0
    drawn = heatmap(Image.new("RGB", (64, 64), "grey"), values, "bits")
    side = drawn.height
    right = np.asarray(drawn.convert("L"), float)[:, side + 12 : 2 * side + 12]
    cells = right.reshape(4, side // 4, 4, side // 4).mean(axis=(1, 3))
    assert np.unravel_index(cells.argmax(), cells.shape) == (1, 2)
    assert np.ptp(np.delete(cells.reshape(-1), 6)) < 1


def test_limits_make_maps_comparable():
    picture, values = Image.new("RGB", (64, 64)), np.ones((2, 2))
    low, high = (heatmap(picture, values, "bits", limits) for limits in ((0, 1), (1, 2)))
    assert np.asarray(low.convert("L"), int).mean() > np.asarray(high.convert("L"), int).mean()


@pytest.mark.parametrize("values", [np.zeros(3), np.array([[np.nan]])])
def test_what_is_no_map_is_refused(values):
    with pytest.raises(UsageError, match="must be finite"):
        heatmap(Image.new("RGB", (8, 8)), values, "bits")
