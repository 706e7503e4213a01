"""The measure of sharpness for pictures with known differences."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from recipes.default_model import sharpness
from recipes.default_model.sharpness import compare, gradient_energy, pyramid, swd


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Twelve pictures of 64×64: discs of random colours with hard edges."""
    rng, y, x = np.random.default_rng(0), *np.mgrid[:64, :64]
    found = np.full((12, 64, 64, 3), 128, np.uint8)
    for picture in found:
        for _ in range(14):
            place = (x - rng.integers(64)) ** 2 + (y - rng.integers(64)) ** 2
            picture[place < rng.integers(3, 14) ** 2] = rng.integers(0, 256, 3)
    return found


def _blurred(pictures: np.ndarray, radius: float) -> np.ndarray:
    softened = (Image.fromarray(p).filter(ImageFilter.GaussianBlur(radius)) for p in pictures)
    return np.stack([np.asarray(p) for p in softened])


def test_the_bands_of_the_pyramid_add_up_to_the_picture(pictures):
    bands = pyramid(pictures[:2])
    x = bands[-1]
    for band in bands[-2::-1]:
        x = band + sharpness._up(x)
    assert [b.shape[1] for b in bands] == [64, 32, 16, 8]
    np.testing.assert_allclose(x, pictures[:2], atol=1e-2)


def test_blur_takes_from_the_finest_level_first_and_from_the_gradients(pictures):
    before = swd(pictures, pictures)
    soft, softer = (swd(_blurred(pictures, radius), pictures) for radius in (0.6, 1.2))
    assert before[0] < soft[0] < softer[0]
    assert soft[0] - before[0] > 3 * (soft[3] - before[3])
    assert gradient_energy(_blurred(pictures, 1.2)) < 0.95 * gradient_energy(pictures)


def test_noise_is_no_sharpness(pictures):
    noise = np.random.default_rng(1).integers(-25, 26, pictures.shape)
    noisy = np.clip(pictures.astype(int) + noise, 0, 255).astype(np.uint8)
    found = compare(noisy, pictures)
    assert found["gradient_energy"] > 1.1
    assert found["distances"][0] > 2 * swd(pictures, pictures)[0]


def test_sets_of_other_sizes_are_refused(pictures):
    with pytest.raises(ValueError, match="expected"):
        swd(pictures[:3], pictures)
