"""Given pictures are read upright, opaque and at the model's size, or refused with the reason."""

import numpy as np
import pytest
from PIL import Image

from mlx_starflow.errors import ImageError, UsageError
from mlx_starflow.pictures.read import (
    Picture,
    fitted,
    in_grey,
    open_mask,
    open_picture,
    pictures_in,
)

RED, BLUE = (200, 20, 30), (10, 40, 220)


def halves(mode: str = "RGB", size=(6, 4)) -> Image.Image:
    """Red above, blue below."""
    pixels = np.empty((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2], pixels[size[1] // 2 :] = RED, BLUE
    return Image.fromarray(pixels).convert(mode)


def test_an_ordinary_picture_is_as_it_was(tmp_path):
    halves().save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    assert np.array_equal(np.asarray(picture.image), np.asarray(halves()))
    assert picture.notes == ()


def test_orientation_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    halves().save(tmp_path / "a.png", exif=exif)
    picture = open_picture(tmp_path / "a.png")
    assert picture.image.size == (4, 6)
    assert picture.image.getpixel((3, 3)) == RED and picture.image.getpixel((0, 3)) == BLUE
    assert "upright" in picture.notes[0]


def test_transparency_is_laid_on_white(tmp_path):
    image = halves("RGBA")
    image.putpixel((0, 0), (*RED, 0))
    image.save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)
    assert picture.image.getpixel((1, 0)) == RED
    assert "white" in picture.notes[0]


def test_an_opaque_alpha_channel_changes_nothing(tmp_path):
    halves("RGBA").save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    assert picture.image.getpixel((0, 0)) == RED and picture.notes == ()


def test_grey_and_palette_become_colour(tmp_path):
    for mode in ("L", "P", "1", "LA"):
        halves(mode).save(tmp_path / "a.png")
        picture = open_picture(tmp_path / "a.png")
        assert picture.image.mode == "RGB" and picture.notes == ()
        expected = np.asarray(halves(mode).convert("RGB"))
        assert np.array_equal(np.asarray(picture.image), expected)


def test_a_transparent_palette_colour_is_laid_on_white(tmp_path):
    halves("P").save(tmp_path / "a.gif", transparency=halves("P").getpixel((0, 0)))
    picture = open_picture(tmp_path / "a.gif")
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    numbers = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    Image.fromarray(numbers).save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    assert np.asarray(picture.image)[:, :, 1].tolist() == [[0, 100], [200, 255]]
    assert "16 to 8 bits" in picture.notes[0]


def test_cmyk_is_converted_and_said(tmp_path):
    halves("CMYK").save(tmp_path / "a.jpg")
    picture = open_picture(tmp_path / "a.jpg")
    assert picture.image.mode == "RGB" and "CMYK" in picture.notes[0]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    other = Image.new("RGB", (6, 4), "green")
    halves().save(path, save_all=True, append_images=[other], duration=100)
    with pytest.raises(ImageError, match="is animated"):
        open_picture(path)


def broken(name: str, folder) -> object:
    path = folder / "a.png"
    if name == "missing":
        return path
    if name == "directory":
        path.mkdir()
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "text":
        path.write_text("no picture")
    elif name == "half":
        Image.effect_noise((64, 64), 80).save(path)
        path.write_bytes(path.read_bytes()[:1500])
    elif name == "header":
        halves().save(path)
        path.write_bytes(path.read_bytes()[:20])
    elif name == "float":
        path = folder / "a.tiff"
        Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    return path


@pytest.mark.parametrize(
    "name", ["missing", "directory", "empty", "text", "half", "header", "float"]
)
def test_broken_files_are_refused_by_name(tmp_path, name):
    path = broken(name, tmp_path)
    with pytest.raises(ImageError, match=path.name):
        open_picture(path)


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    halves(size=(40, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="too many pixels"):
        open_picture(tmp_path / "a.png")


def test_another_size_is_refused_or_fitted():
    wide = Picture(halves(size=(12, 4)), "wide.png")
    sizes = [(4, 4), (6, 4)]
    with pytest.raises(ImageError, match="12x4 pixels; this model's pictures are 4x4, 6x4"):
        fitted(wide, sizes)
    for fit in ("crop", "stretch"):
        made = fitted(wide, sizes, fit)
        assert made.image.size == (6, 4)
        assert made.image.getpixel((3, 0)) == RED
        assert "from 12x4 to 6x4" in made.notes[0]
    with pytest.raises(UsageError, match="fit is"):
        fitted(wide, sizes, "squeeze")


def test_cropping_keeps_the_centre():
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = RED
    made = fitted(Picture(Image.fromarray(pixels), "a.png"), [(4, 4)], "crop")
    assert (np.asarray(made.image) == RED).all()


def test_grey_models_say_that_colours_are_dropped():
    made = in_grey(Picture(halves(), "a.png"))
    assert "grey" in made.notes[0]
    plain = Picture(halves("L").convert("RGB"), "a.png")
    assert in_grey(plain) is plain


def test_masks(tmp_path):
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2], mask[1, 3] = 255, 100
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert np.argwhere(open_mask(tmp_path / "m.png", (6, 4))).tolist() == [[1, 2]]
    with pytest.raises(ImageError, match="6x4 pixels and the picture 4x6"):
        open_mask(tmp_path / "m.png", (4, 6))


def test_a_hole_in_a_picture_is_a_mask(tmp_path):
    image = halves("RGBA")
    image.putpixel((5, 3), (*BLUE, 0))
    image.save(tmp_path / "m.png")
    assert np.argwhere(open_mask(tmp_path / "m.png", (6, 4))).tolist() == [[3, 5]]


def test_folders_are_read_by_name(tmp_path):
    for name in ("b.png", "a.jpg"):
        halves().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    found = pictures_in([tmp_path, tmp_path / "b.png"])
    assert [p.name for p in found] == ["a.jpg", "b.png", "b.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no pictures"):
        pictures_in([tmp_path / "empty"])
    with pytest.raises(ImageError, match="no such file"):
        pictures_in([tmp_path / "none.png"])
