"""Write folders of pictures in a style with caption files, as ``train`` reads them."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

import mlx_starflow as sf
from mlx_starflow.generation.result import Result
from mlx_starflow.training.copies import moved

from ..default_model.painter import PLACES, Scene, caption, paint, random_scene, understood

BUNDLE = Path(__file__).parents[2] / "mlx_starflow" / "assets" / "default"
# What a caption in a style begins with. The model knows neither "inverted" nor "pencil", so both
# become its token of unknown words.
STYLES = {"plain": "", "inverted": "an inverted picture of ", "pencil": "a pencil drawing of "}
SIZE = 128
FARTHEST = 12  # pixels by which copies are shifted at most, in each direction
DRAWN = 40  # pictures that are drawn at once


def vocabulary() -> dict:
    """The vocabulary of the embedded model: its words and their meanings."""
    return json.loads((BUNDLE / "vocabulary.json").read_text())


def all_scenes(seed: int) -> Iterator[tuple[Scene, str]]:
    """Random scenes without end whose subjects and captions are in the model's vocabulary, with
    captions that name the place."""
    known, i = vocabulary(), 0
    words = set(known["words"])
    while True:
        rng = np.random.default_rng([seed, i, 7])
        i += 1
        scene = random_scene(rng)
        text = caption(scene, rng)
        readable = words.issuperset(re.findall(r"[a-z]+", text.lower()))
        tells = scene.place.replace(" ", "") in understood(text)
        if readable and tells and scene.subject in known["subject"]:
            yield scene, text


def scenes(count: int, seed: int) -> list[tuple[Scene, str]]:
    """The first of ``all_scenes``."""
    return list(islice(all_scenes(seed), count))


def varied(count: int, seed: int) -> list[tuple[Scene, str]]:
    """Scenes of ``all_scenes`` with all subjects and all places equally often, as far as the count
    permits."""
    subjects = Counter({s: 0 for s in vocabulary()["subject"]})
    places = Counter({p: 0 for p in PLACES})
    found: list[tuple[Scene, str]] = []
    for scene, text in all_scenes(seed):
        if len(found) == count:
            break
        rare = subjects[scene.subject] == min(subjects.values())
        if rare and places[scene.place] == min(places.values()):
            subjects[scene.subject] += 1
            places[scene.place] += 1
            found.append((scene, text))
    return found


def styled(picture: Image.Image, style: str) -> Image.Image:
    """A painting in another style. "pencil": grey tones on white, with lines where the painting is
    darker than its surroundings; "inverted": inverted colours; "plain": unchanged."""
    if style == "inverted":
        return ImageOps.invert(picture.convert("RGB"))
    if style == "pencil":
        grey = picture.convert("L")
        light = np.asarray(grey, float)
        around = np.asarray(grey.filter(ImageFilter.GaussianBlur(2.5)), float)
        line = np.clip(light / np.maximum(around, 1), 0, 1) ** 1.5
        tone = 70 + 185 * (light / 255) ** 0.8
        pixels = np.clip(tone * line, 0, 255).astype(np.uint8)
        return Image.fromarray(pixels).convert("RGB")
    return picture.convert("RGB")


def shifted(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A picture that is shifted by some pixels; those of its border fill what it leaves."""
    top, left = (int(n) for n in rng.integers(-FARTHEST, FARTHEST + 1, 2))
    return moved(picture, top, left)


def write_folder(
    folder: Path, style: str, words: str, painted: list[tuple[Scene, str]], shifts: int = 0
) -> None:
    """Write paintings of scenes in a style, with captions that begin with ``words``, and of each
    ``shifts`` shifted copies."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i, (scene, text) in enumerate(painted):
        picture = styled(paint(scene, SIZE), style)
        _save(folder / f"{i:04d}.png", picture, words + text)
        for copy in range(shifts):
            _save(folder / f"{i:04d}-{copy}.png", shifted(picture, rng), words + text)


def draw_all(
    pipe: sf.Pipeline, prompts: list[str], **options: float
) -> Iterator[tuple[Result, int]]:
    """Pictures of prompts with the seeds 0, 1, ...: a result and the place of the picture in it.
    ``options``: of the sampler."""
    for start in range(0, len(prompts), DRAWN):
        part = prompts[start : start + DRAWN]
        seeds = list(range(start, start + len(part)))
        result = pipe.generate(part, seed=seeds, sampler="sequential", **options)
        yield from ((result, place) for place in range(len(part)))


def write_ordinary(folder: Path, count: int, seed: int) -> None:
    """Write pictures that the embedded model draws; their prompts are stored in them."""
    texts = [text for _, text in scenes(count, seed)]
    with sf.load() as pipe:
        for seed, (result, place) in enumerate(draw_all(pipe, texts)):
            result.save(place, folder / f"ordinary-{seed:04d}.png")


def _save(path: Path, picture: Image.Image, text: str) -> None:
    picture.save(path)
    path.with_suffix(".txt").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--style", choices=tuple(STYLES), default="pencil")
    parser.add_argument("--words", help="that captions begin with, if not those of the style")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--varied", action="store_true", help="subjects and places equally often")
    parser.add_argument("--shifts", type=int, default=0, help="shifted copies of each painting")
    parser.add_argument("--ordinary", type=int, default=0, help="pictures that the model draws")
    given = parser.parse_args()
    words = STYLES[given.style] if given.words is None else given.words
    painted = (varied if given.varied else scenes)(given.count, given.seed)
    write_folder(given.folder, given.style, words, painted, given.shifts)
    write_ordinary(given.folder, given.ordinary, given.seed)


if __name__ == "__main__":
    main()
