"""Which settings of a picture the command line overrides, and which a JPEG can store."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from mlx_starflow.cli.request import RULES, merged
from mlx_starflow.generation.stored import StoredSettings
from mlx_starflow.pictures import metadata
from mlx_starflow.pictures.metadata import read_metadata, save_picture

STORED = {
    "generator": "mlx-starflow", "prompt": "red", "seed": 1, "guidance": 2.0, "sampler": "jacobi",
    "tolerance": 0.1, "block_size": 4, "windows": [4, 4], "max_sweeps": 3, "denoise": True,
    "noise_std": 0.2, "denoiser": "score", "aspect_ratio": "3:2",
}  # fmt: skip
PUT_ASIDE = {  # flag -> what of the picture no longer counts
    "sampler": {"tolerance", "block_size", "windows", "max_sweeps"},
    "block_size": {"windows"},
    "windows": {"block_size"},
    "denoise": {"noise_std", "denoiser"},
    "denoiser": {"noise_std"},
    "width": {"aspect_ratio"},
    "height": {"aspect_ratio"},
}


def test_every_rule_is_tested():
    assert set(RULES) == set(PUT_ASIDE)


@pytest.mark.parametrize("flag", PUT_ASIDE)
def test_a_flag_puts_aside_what_depended_on_the_old_value(flag):
    stored = StoredSettings.from_dict(STORED, "a.png")
    before, after = merged({}, stored), merged({flag: "given"}, stored)
    assert after[flag] == "given"
    assert set(before) - set(after) == PUT_ASIDE[flag] - {flag}
    assert all(after[k] == before[k] for k in set(before) & set(after) - {flag})


def with_noise(characters: int) -> dict:
    """Settings whose JSON has so many characters, most of them a noise's."""
    data = {"generator": "mlx-starflow", "noise": {"sha256": "0", "data": ""}}
    data["noise"]["data"] = "x" * (characters - len(json.dumps(data)))
    assert len(json.dumps(data)) == characters
    return data


@pytest.mark.parametrize(
    ("characters", "kept"), [(60_000, True), (60_001, False), (300_000, False)]
)
def test_a_jpeg_holds_a_noise_that_fits_its_segment(tmp_path, characters, kept):
    path = save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.jpg", with_noise(characters))
    noise = read_metadata(path)["noise"]
    assert ("data" in noise) == kept and noise["sha256"] == "0"


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_other_formats_hold_any(tmp_path, suffix):
    data = with_noise(300_000)
    path = save_picture(Image.new("RGB", (8, 8)), tmp_path / f"a.{suffix}", data)
    assert read_metadata(path) == data


def test_the_settings_stand_where_other_programs_look(tmp_path):
    """EXIF UserComment with its ASCII mark, in IFD 0x8769, tag 0x9286; in a PNG also as text."""
    data = {"generator": "mlx-starflow", "prompt": "a fox"}
    for suffix in ("png", "jpg", "webp"):
        path = save_picture(Image.new("RGB", (8, 8)), tmp_path / f"a.{suffix}", data)
        with Image.open(path) as picture:
            picture.load()
            comment = picture.getexif().get_ifd(0x8769)[0x9286]
            assert comment[:8] == b"ASCII\0\0\0" and json.loads(comment[8:]) == data
            if suffix == "png":
                assert json.loads(picture.info[metadata.PNG_KEY]) == data
