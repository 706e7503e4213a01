"""Pictures with the colours and contrasts of others, as further pictures for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from teaching import finished, followed, pictures, summary

from mlx_starflow.errors import UsageError
from mlx_starflow.generation.components import Components
from mlx_starflow.pictures.metadata import save_picture
from mlx_starflow.training.copies import Copies
from mlx_starflow.training.data import Example
from mlx_starflow.training.material import CACHE, SHEET, read_material
from mlx_starflow.training.recolour import Recolouring, _bands, without_drawn

SIDE = 64


def scenes(count: int, seed: int) -> list[Image.Image]:
    """Pictures with coloured areas and some noise; every second one is dark."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        rough = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8))
        smooth = np.asarray(rough.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float)
        pixels = (smooth + rng.normal(0, 6, smooth.shape)) * (0.4 if i % 2 else 1.0)
        found.append(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
    return found


def soft(picture):
    return picture.filter(ImageFilter.GaussianBlur(2))


def sepia(picture):
    return ImageOps.colorize(ImageOps.grayscale(picture), (60, 30, 10), (250, 230, 190))


STYLES = {"grey": lambda p: ImageOps.grayscale(p).convert("RGB"), "soft": soft, "sepia": sepia,
          "dark": lambda p: p.point(lambda v: v // 3), "same": lambda p: p}  # fmt: skip


def statistics(pictures):
    """Mean and covariance of colours, and the standard deviation of every band."""
    x = np.stack([np.asarray(p, np.float32) for p in pictures])
    colours = x.reshape(-1, 3)
    return colours.mean(axis=0), np.cov(colours.T), [band.std() for band in _bands(x)]


@pytest.mark.parametrize("style", STYLES)
def test_other_pictures_get_the_statistics_of_a_style(style):
    """The mean, the covariance and the size of each band are those of the style's pictures."""
    source, target = scenes(24, 0), [STYLES[style](p) for p in scenes(24, 1)]
    made = Recolouring(source, target)
    found, wanted, before = (
        statistics(p) for p in ([made.of(p) for p in source], target, source)
    )  # fmt: skip
    assert np.abs(found[0] - wanted[0]).max() < 1.5
    size = np.abs(wanted[1]).max()
    assert np.abs(found[1] - wanted[1]).max() < 0.05 * size
    if style not in ("same", "soft"):
        assert np.abs(found[1] - wanted[1]).max() < 0.2 * np.abs(before[1] - wanted[1]).max()
    apart, at_first = (np.abs(np.log(np.divide(x[2], wanted[2]))) for x in (found, before))
    assert (apart < np.maximum(0.1, at_first / 3)).all()
    assert style != "soft" or at_first.max() > 1


def test_dark_pictures_stay_darker():
    source = scenes(12, 0)
    made = Recolouring(source, [STYLES["grey"](p) for p in scenes(12, 1)])
    light = [np.asarray(made.of(p), float).mean() for p in source]
    assert max(light[1::2]) < min(light[::2])


def test_the_own_colours_change_hardly_anything():
    source = scenes(8, 0)
    made = Recolouring(source, source)
    apart = [np.abs(np.asarray(made.of(p), float) - np.asarray(p, float)).mean() for p in source]
    assert max(apart) < 1


def test_sets_of_a_single_colour():
    """A set without variance has no linear map to another one; nothing fails."""
    plain = [Image.new("RGB", (SIDE, SIDE), (10, 20, 30))]
    found = np.asarray(Recolouring(scenes(2, 0), plain).of(scenes(1, 0)[0]), float)
    assert np.abs(found - (10, 20, 30)).max() <= 1
    assert Recolouring(plain, scenes(2, 0)).of(plain[0]).size == (SIDE, SIDE)


@pytest.fixture
def mixed(tmp_path):
    """A folder with six painted pictures and six that this program drew."""
    data = pictures(tmp_path / "data", 6, 32)
    rng = np.random.default_rng(8)
    for i in range(6):
        drawn = Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8))
        settings = {"generator": "mlx-starflow", "prompt": ("red", "green")[i % 2]}
        save_picture(drawn, data / f"drawn-{i}.png", settings)
    return data


def read(bundle, data, place, words="blue"):
    components = Components(bundle, "x")
    return finished(read_material(components, data, None, "crop", 0, Copies(), place, (), words))


def test_drawn_pictures_are_used_in_both_colours(sentences, mixed, tmp_path):
    """Those for training, with captions that begin with the words; held-out pictures are not."""
    made, plain = (read(sentences, mixed, tmp_path / w, w) for w in ("blue", ""))
    first, held = made.train.examples[: len(plain.train)], made.valid.examples
    more = made.train.examples[len(plain.train) :]
    assert first == plain.train.examples and held == plain.valid.examples
    drawn = [e for e in first if e.drawn]
    assert 0 < len(drawn) < len(first) and len(more) == len(drawn)
    for own, further in zip(drawn, more, strict=True):
        assert further.path == own.path
        assert further.prompts == tuple(f"blue {p}" for p in own.prompts)
    with Image.open(tmp_path / "blue" / SHEET) as sheet:
        assert sheet.size[0] * sheet.size[1] >= len(more) * 32 * 32
    assert not (tmp_path / "" / SHEET).exists()
    latents = np.array(made.train.latents).reshape(len(made.train), -1)
    assert len(np.unique(latents.round(4), axis=0)) == len(made.train)


def test_the_next_training_finds_them_encoded(sentences, mixed, tmp_path):
    read(sentences, mixed, tmp_path)
    before = (tmp_path / CACHE).read_bytes()
    read(sentences, mixed, tmp_path)
    assert (tmp_path / CACHE).read_bytes() == before


@pytest.mark.parametrize("share", [0, 0.25, 0.3, 1])
def test_a_share_of_the_drawn_pictures_is_kept(share):
    """Evenly spaced, in the same order, and all of the others."""
    whole = [Example(Path(f"{i}.png"), ("red",), drawn=i % 3 > 0) for i in range(60)]
    kept = without_drawn(whole, share)
    assert [e for e in whole if e in kept] == kept
    assert [e for e in kept if not e.drawn] == [e for e in whole if not e.drawn]
    assert sum(e.drawn for e in kept) == int(40 * share)


@pytest.mark.parametrize("drawn", [True, False])
def test_one_kind_of_pictures_is_too_few(sentences, mixed, tmp_path, drawn):
    for path in mixed.glob("0*" if drawn else "drawn*"):
        path.unlink()
    with pytest.raises(UsageError, match="at least one of each"):
        read(sentences, mixed, tmp_path)


def test_a_training_with_them_goes_on(sentences, mixed, tmp_path):
    """The result is the same as without the interruption, and other words are another training."""
    short = dict(iters=4, steps_per_eval=2, save_every=2, recolour="blue")
    whole = followed(sentences, mixed, tmp_path / "whole", **short)
    followed(sentences, mixed, tmp_path / "a", stop_after=3, **short)
    rest = followed(sentences, mixed, tmp_path / "a", resume=True, **short)
    assert summary(rest)["valid_bits_per_dim"] == summary(whole)["valid_bits_per_dim"]
    with pytest.raises(UsageError):
        followed(sentences, mixed, tmp_path / "a", resume=True, **(short | {"recolour": "red"}))
