"""The training set: pictures encoded as latents and captions as features, and batches of them.

All random numbers of a step depend only on the seed and the step number, so a resumed training
computes exactly what it would have computed without the interruption.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

from ..adapters.saving import write_arrays
from ..bundle.load import load_arrays
from ..bundle.vocabulary import read_vocabulary
from ..config import FlowConfig
from ..errors import WeightsError
from ..exact.scoring import noise_kind
from ..files.regular import is_regular
from ..flow import Context
from ..generation.components import Components
from ..generation.context import PromptRows, prompt_rows
from ..pictures.arrays import from_picture
from ..pictures.metadata import save_picture
from ..pictures.sheet import contact_sheet
from .copies import Copies, Copy
from .data import Example, prepared, read_examples, split, without_duplicates
from .recolour import Used, with_recoloured

CACHE = "latents.safetensors"
SHEET = "recoloured.png"  # some recoloured pictures, to look at
SHOWN = 12  # pictures on the sheet, at most
_SEEDS = 10_000_019  # distance between the noise keys of two consecutive seeds


@dataclass(frozen=True)
class Part:
    """The training or the held-out pictures: their latents and the rows of their captions."""

    examples: tuple[Example, ...]
    latents: mx.array  # (N, h, w, c) float32, clean
    copies: mx.array | None  # (shifts, mirrors, N, h, w, c): with those of all copies
    captions: tuple[tuple[int, ...], ...]  # for each picture, rows of ``Material.rows``

    def __len__(self) -> int:
        return len(self.examples)


@dataclass(frozen=True)
class Material:
    """The data of a training."""

    train: Part
    valid: Part | None
    rows: PromptRows
    config: FlowConfig
    notes: tuple[str, ...]

    @property
    def numbers(self) -> int:
        """Numbers in the latent of one picture, h * w * c."""
        return int(np.prod(self.train.latents.shape[1:]))

    def context(self, rows: np.ndarray) -> Context:
        """Features or labels of captions, given their rows (B,); row -1 is the null caption."""
        if self.rows.rows is None:
            return None
        last = self.rows.rows.shape[0] - 1  # the null caption
        return self.rows.rows[mx.array(np.where(rows < 0, last, rows))]


@dataclass(frozen=True)
class Encoded:
    """Progress while pictures are encoded."""

    done: int
    total: int


def read_material(
    components: Components,
    folder: Path,
    prompt: str | None,
    fit: str,
    seed: int,
    copies: Copies,
    cache: Path | None = None,
    more_prompts: tuple[str, ...] = (),
    recolour: str = "",
    recolour_keep: float = 1.0,
) -> Generator[Encoded, None, Material]:
    """Read, check and encode a folder of pictures; yields progress and returns the material.

    ``copies``: those of the pictures for training. ``cache``: directory of the file of latents, so
    that the next training encodes only new or changed pictures, and of a sheet of recoloured ones.
    ``more_prompts``: further prompts to encode, for previews. ``recolour``: what the captions of
    recoloured pictures begin with; "": there are none. ``recolour_keep``: share of the pictures
    without these colours that is used too. The text encoder is dropped afterwards. Errors: those of
    ``read_examples``, ``split`` and ``with_recoloured``, UsageError, TextError.
    """
    train, valid, notes = read_examples(folder, prompt)
    side = components.flow_config.grid_size * components.flow_config.patch_size * components.factor
    latents = _Latents(components, cache)
    total, done = len(train) + len(valid), 0
    parts: list[list[Example]] = []
    images: dict[str, Image.Image] = {}  # by digest: those to encode when all have been read
    for part in (train, valid):
        usable = []
        for example in part:
            found = prepared(example, (side, side), fit, notes)
            if found is not None:
                usable.append(found[0])
                if recolour and part is train:
                    images[found[0].digest] = found[1].image
                else:
                    latents.add(found[0], found[1].image, copies if part is train else Copies())
            done += 1
            yield Encoded(done, total)
        parts.append(without_duplicates(usable, notes))
    train, valid = split(parts[0], parts[1], seed, notes)
    if recolour:
        used = with_recoloured(train, images, recolour, recolour_keep)
        if cache is not None:
            _save_sheet(used[-sum(e.drawn for e in train) :], cache / SHEET)
        train = [example for example, _ in used]
        used += [(e, partial(images.__getitem__, e.digest)) for e in valid if e.digest in images]
        total += len(used)
        for example, image in used:
            latents.add(example, image(), copies)
            done += 1
            yield Encoded(done, total)
    latents.save()
    prompts = [p for e in (*train, *valid) for p in e.prompts]
    rows = prompt_rows(components, [*prompts, *more_prompts])
    if components.config.text is not None:
        for cut in rows.cuts:
            notes.add("Caption cut to the model's text length", rows.prompts[cut.prompt][:40])
    vocabulary = read_vocabulary(components.directory)
    if vocabulary is not None:
        for word in dict.fromkeys(w for p in rows.prompts for w in vocabulary.unknown(p)):
            notes.add("Words of captions and prompts that the model has never seen", word[:40])
    components.drop("text_encoder")
    return Material(
        _part(train, latents, rows, copies),
        _part(valid, latents, rows, Copies()) if valid else None,
        rows,
        components.flow_config,
        notes.sentences(),
    )


def _save_sheet(recoloured: list[Used], path: Path) -> None:
    sheet = contact_sheet([image() for _, image in recoloured[:SHOWN]])
    save_picture(sheet, path, {"generator": "mlx-starflow", "command": "train"})


def _part(examples: list[Example], latents: _Latents, rows: PromptRows, copies: Copies) -> Part:
    known = {prompt: row for row, prompt in enumerate(rows.prompts)}
    found = [mx.stack([latents.of(e, copy) for e in examples]) for copy in copies.each()]
    return Part(
        tuple(examples),
        found[0],
        mx.stack(found).reshape(*copies.shape, *found[0].shape) if len(found) > 1 else None,
        tuple(tuple(known.get(p, -1) for p in e.prompts) for e in examples),
    )


class _Latents:
    """Latents by the digest of the picture, read from the cache file if it has them."""

    def __init__(self, components: Components, cache: Path | None) -> None:
        self._components = components
        self._file = cache / CACHE if cache is not None and components.has("vae") else None
        self._encoder = components.fingerprint_of("vae")[:16]
        self._known = self._read()
        self._found: dict[str, mx.array] = {}

    def _read(self) -> dict[str, mx.array]:
        if self._file is None or not is_regular(self._file):
            return {}
        try:
            arrays = load_arrays(self._file)
            mx.eval(arrays)
        except (WeightsError, RuntimeError):
            return {}  # a damaged cache is ignored and written again
        return {name: a for name, a in arrays.items() if mx.isfinite(a).all().item()}

    def add(self, example: Example, image: Image.Image, copies: Copies) -> None:
        for copy in copies.each():
            key = self._key(example, copy)
            if key not in self._found:
                found = self._known.get(key)
                if found is None:
                    found = self._encode(copy.of(image, example.digest))
                self._found[key] = found

    def of(self, example: Example, copy: Copy) -> mx.array:
        return self._found[self._key(example, copy)]

    def save(self) -> None:
        if self._file is not None and set(self._found) - set(self._known):
            write_arrays(self._file, self._found, {})

    def _key(self, example: Example, copy: Copy) -> str:
        return f"{self._encoder}.{example.digest}{copy.suffix}"

    def _encode(self, image: Image.Image) -> mx.array:
        vae = self._components.vae
        channels = 3 if vae is not None else self._components.flow_config.in_channels
        x = from_picture(image, channels)
        latent = (x if vae is None else vae.encode(x))[0]
        mx.eval(latent)
        return latent


@dataclass(frozen=True)
class Batch:
    """The input of one pass."""

    x: mx.array  # (B, h, w, c), with noise
    context: Context


def batch(
    material: Material, seed: int, step: int, passes: tuple[int, int], size: int, dropout: float
) -> Batch:
    """The batch of pass ``passes[0]`` of ``passes[1]`` of a step, with ``size`` pictures.

    Every picture is used once per epoch, in an order that depends on the seed, with one of its
    captions at random; with probability ``dropout`` it has the null caption instead.
    """
    part, first = material.train, (step * passes[1] + passes[0]) * size
    places = [_place(seed, first + i, len(part)) for i in range(size)]
    rng = np.random.default_rng([seed, 1, step, passes[0]])
    rows = np.array([part.captions[p][rng.integers(len(part.captions[p]))] for p in places])
    rows = np.where(rng.random(size) < dropout, -1, rows)
    index = mx.array(places)
    x = part.latents[index]
    if part.copies is not None:
        shifts, mirrors = part.copies.shape[:2]
        mirror = (rng.random(size) < 0.5) if mirrors > 1 else np.zeros(size)
        shift = rng.integers(shifts, size=size) if shifts > 1 else np.zeros(size)
        x = part.copies[mx.array(shift.astype(int)), mx.array(mirror.astype(int)), index]
    key = mx.random.key(seed * _SEEDS + step * passes[1] + passes[0])
    return Batch(with_noise(x, material.config, key), material.context(rows))


def _place(seed: int, number: int, total: int) -> int:
    epoch, place = divmod(number, total)
    return int(np.random.default_rng([seed, 0, epoch]).permutation(total)[place])


def with_noise(x: mx.array, config: FlowConfig, key: mx.array) -> mx.array:
    """Clean x (B, H, W, C) plus the noise with which the model is trained (Gaussian noise of
    ``noise_std``, or uniform dequantization noise), independent for every picture."""
    if config.noise_std:
        return x + config.noise_std * mx.random.normal(x.shape, key=key)
    if noise_kind(config) == "uniform":  # 8-bit pixels
        pixels = mx.round((x + 1) * 127.5)
        return (pixels + mx.random.uniform(shape=x.shape, key=key)) / 128 - 1
    return x
