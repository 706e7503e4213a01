"""The data of a training: pictures and their copies, encoded once, held out, and in batches."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from teaching import finished, pictures

from mlx_starflow.generation.components import Components
from mlx_starflow.pictures.metadata import save_picture
from mlx_starflow.training.copies import Copies
from mlx_starflow.training.data import Example, Notes, read_examples, split
from mlx_starflow.training.material import CACHE, Part, _Latents, batch, read_material


def material(bundle, data, copies=None, cache=None, seed=0):
    components = Components(bundle, "x")
    return finished(
        read_material(components, data, None, "crop", seed, copies or Copies(), cache)
    )  # fmt: skip


def without_noise(made):
    """The same material for a model that is trained without noise."""
    return dataclasses.replace(made, config=dataclasses.replace(made.config, noise_std=0.0))


def places(x: mx.array, part: Part) -> list[int | None]:
    """Which picture of a part each of x (B, h, w, c) is; None: none of them."""
    known = part.latents if part.copies is None else part.copies
    apart = mx.abs(known.reshape(-1, 1, *x.shape[1:]) - x).max(axis=(2, 3, 4))
    return [
        int(i) % len(part) if least < 1e-6 else None
        for i, least in zip(apart.argmin(axis=0).tolist(), apart.min(axis=0).tolist(), strict=True)
    ]


def test_a_drawn_picture_brings_its_prompt(tmp_path):
    """Its own caption file comes first, and its prompt comes before the one for all pictures."""
    data, drawn = pictures(tmp_path / "data", 1), {"generator": "mlx-starflow"}
    picture = Image.new("RGB", (16, 16))
    for name, settings in (
        ("a", drawn | {"prompt": "two red\nboats"}), ("b", drawn), ("c", drawn | {"prompt": "a"}),
    ):  # fmt: skip
        save_picture(picture, data / f"{name}.png", settings)
    (data / "c.txt").write_text("a cat")
    found, _, _ = read_examples(data, "blue")
    prompts = {e.path.stem: e.prompts for e in found}
    assert prompts["a"] == ("two red boats",) and prompts["b"] == ("blue",)
    assert prompts["c"] == ("a cat",)


def test_copies_of_pictures(tmp_path):
    """The first is the picture; the others are shifted inside their border, and do not change."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    image, digest = Image.fromarray(pixels), "0123456789abcdef" * 4
    copies = Copies(flip=True, shifts=3)
    made = [(c, np.asarray(c.of(image, digest))) for c in copies.each()]
    assert len(made) == copies.count == 8 and len({c.suffix for c, _ in made}) == 8
    assert np.array_equal(made[0][1], pixels) and np.array_equal(made[1][1], pixels[:, ::-1])
    for copy, found in made[2::2]:
        assert np.array_equal(found, copy.of(image, digest)) and found.shape == pixels.shape
        kept = {tuple(p) for p in found.reshape(-1, 3)} & {tuple(p) for p in pixels.reshape(-1, 3)}
        assert len(kept) > 0.6 * 20 * 30
        assert not np.array_equal(found, pixels)
        mirror = dataclasses.replace(copy, mirror=True).of(image, digest)
        assert np.array_equal(mirror, found[:, ::-1])
    assert list(Copies().each()) == [made[0][0]]


def test_batches_take_all_copies_of_their_pictures(colours, tmp_path):
    made = material(colours, pictures(tmp_path / "data", 4), Copies(flip=True, shifts=2))
    assert made.valid.copies is None and made.train.copies.shape[:3] == (3, 2, len(made.train))
    seen = set()
    for step in range(60):
        for x in batch(without_noise(made), 0, step, (0, 1), 2, 0.0).x:
            apart = mx.abs(made.train.copies - x).max(axis=(3, 4, 5)).reshape(-1)
            assert apart.min().item() < 1e-6
            seen.add(apart.argmin().item())
    assert len(seen) > len(made.train)


def test_captions_are_dropped_and_noise_is_added(colours, tmp_path):
    """A batch is told by its step: noise of its own, and captions dropped at their rate."""
    made = material(colours, pictures(tmp_path / "data"))
    null = made.rows.rows[-1]
    dropped, noise = [], []
    for step in range(300):
        found = batch(made, 0, step, (0, 1), 4, 0.1)
        dropped += [(row == null).all().item() for row in found.context]
        again = batch(made, 0, step, (0, 1), 4, 0.1)
        assert (found.x == again.x).all().item()
        clean = min(mx.square(found.x[0] - latent).mean().item() for latent in made.train.latents)
        noise.append(clean)
    assert np.mean(dropped) == pytest.approx(0.1, abs=0.03)
    assert np.sqrt(np.mean(noise)) == pytest.approx(0.2, rel=0.03)  # the model's noise_std


def test_no_held_out_picture_is_trained_on(colours, tmp_path):
    """Three epochs of batches have every training picture three times, and no held-out one."""
    made = material(colours, pictures(tmp_path / "data", 20), Copies(flip=True, shifts=1))
    assert len(made.valid) == 2 and len(made.train) == 18
    seen = []
    for step in range(18):
        x = batch(without_noise(made), 0, step, (0, 1), 3, 0.1).x
        assert places(x, made.valid) == [None] * 3
        seen += places(x, made.train)
    assert sorted(seen) == sorted(3 * [*range(18)])


def test_the_seed_selects_the_tenth_that_is_held_out():
    whole = [Example(Path(f"{i}.png"), ("red",), str(i)) for i in range(30)]

    def held(seed):
        train, valid = split(whole, [], seed, Notes())
        assert len(valid) == 3 and {*train, *valid} == {*whole}
        return frozenset(e.digest for e in valid)

    assert held(0) == held(0) and len({held(seed) for seed in range(5)}) > 1


@pytest.fixture
def encoded(monkeypatch):
    """The pictures that are encoded, one after another."""
    found, plain = [], _Latents._encode
    monkeypatch.setattr(
        _Latents, "_encode", lambda self, image: found.append(image) or plain(self, image)
    )
    return found


def test_pictures_are_encoded_once(sentences, tmp_path, encoded):
    """The next training encodes only what has changed; a damaged file counts as none."""
    data, place = pictures(tmp_path / "data", 3, 32), tmp_path / "a"

    def latents():
        encoded.clear()
        made = material(sentences, data, Copies(flip=True), place)
        return mx.concatenate([made.train.copies.reshape(-1, 4, 4, 4), made.valid.latents])

    first = latents()
    assert len(encoded) == 6  # three pictures and their mirror images
    known = mx.load(str(place / CACHE)).keys()
    assert mx.array_equal(latents(), first) and not encoded
    (place / CACHE).write_bytes((place / CACHE).read_bytes()[:-10])
    assert mx.allclose(latents(), first, atol=1e-4) and len(encoded) == 6
    assert mx.load(str(place / CACHE)).keys() == known
    Image.new("RGB", (32, 32), "red").save(data / "01.png")
    latents()
    assert len(encoded) == 2 and {i.getpixel((0, 0)) for i in encoded} == {(255, 0, 0)}
