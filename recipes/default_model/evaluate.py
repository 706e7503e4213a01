"""Whether the shipped bundle draws what prompts ask for, judged by the classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .classifier import KINDS, Judge, labels_of, predict
from .data import read_json, write_json
from .painter import Scene, caption, paint, random_scene, understood, vocabulary
from .sharpness import measure, paint_all
from .two_samples import told_apart


def random_prompts(count: int, seed: int) -> tuple[list[str], list[Scene]]:
    """Random scenes with other seeds than in training, and captions that name place and colour."""
    prompts, scenes = [], []
    for i in range(count):
        rng = np.random.default_rng([seed, i, 7])
        scene = random_scene(rng)
        while True:
            text = caption(scene, rng)
            said = understood(text)
            tells_place = scene.place.replace(" ", "") in said
            if tells_place and (scene.colour is None or scene.colour in said):
                break
        prompts.append(text)
        scenes.append(scene)
    return prompts, scenes


def shares(judge: Judge, pictures: np.ndarray, scenes: list[Scene]) -> dict[str, float]:
    """Share of pictures in which the judge recognizes the request, per kind and for all kinds."""
    labels, found = labels_of(scenes), predict(judge, pictures)
    right = {kind: found[kind] == labels[kind] for kind in KINDS}
    right["all at once"] = np.logical_and.reduce([right[kind] for kind in KINDS])
    return {kind: float(hits.mean()) for kind, hits in right.items()}


def missed(judge: Judge, pictures: np.ndarray, scenes: list[Scene]) -> list[str]:
    """The requested and the recognized content of every picture in which they differ."""
    labels, found = labels_of(scenes), predict(judge, pictures)
    lines = []
    for i in range(len(scenes)):
        wrong = [
            f"{KINDS[kind][labels[kind][i]]} seen as {KINDS[kind][found[kind][i]]}"
            for kind in KINDS
            if found[kind][i] != labels[kind][i]
        ]
        if wrong:
            lines.append(f"{i}: {'; '.join(wrong)}")
    return lines


def draw(pipe, prompts: list[str], folder: Path, **options) -> np.ndarray:
    """Pictures (N, H, W, 3) of the pipeline, prompt i with seed i; each is stored in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for i, prompt in enumerate(prompts):
        path = folder / f"{i:04d}.npy"
        if not path.exists():
            image = pipe.generate(prompt, seed=i, **options).images[0]
            np.save(path, np.asarray(image))
        pictures.append(np.load(path))
    return np.stack(pictures)


def mean_distance(pictures: np.ndarray) -> float:
    """Mean over pairs of the root mean square difference, pixels in [0, 1]."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32) / 255
    n = len(flat)
    pairs = [np.sqrt(np.mean((flat[i] - flat[j]) ** 2)) for i in range(n) for j in range(i)]
    return float(np.mean(pairs))


def diversity(pipe, folder: Path, seeds: int = 12, **options) -> dict[str, float]:
    """How different the pictures of one caption are: samples against paintings."""
    asked = {
        "a fox in snow": Scene("fox", "snow"),
        "a red car in the city": Scene("car", "city", "red"),
        "a boat on the sea": Scene("boat", "sea"),
    }
    drawn, painted = [], []
    for i, (prompt, scene) in enumerate(asked.items()):
        drawn.append(mean_distance(draw(pipe, [prompt] * seeds, folder / str(i), **options)))
        fields = {k: v for k, v in vars(scene).items() if k != "seed"}
        own = [np.asarray(paint(Scene(**fields, seed=s))) for s in range(seeds)]
        painted.append(mean_distance(np.stack(own)))
    return {"samples": float(np.mean(drawn)), "paintings": float(np.mean(painted))}


def evaluate_bundle(
    folder: Path, bundle: Path, judge: Judge, count: int, say=lambda line: None, seed: int = 11
) -> dict:
    """Return the measurements of the model card, and write them to ``report.json``."""
    import mlx_starflow as sf

    pipe = sf.load(bundle)
    prompts, scenes = random_prompts(count, seed)
    pictures = draw(pipe, prompts, folder / "prompts")
    paintings = paint_all(scenes, pipe.config.image_size)
    report = {
        "prompts": count,
        "words": len(vocabulary()["words"]),
        "seen_as_asked": shares(judge, pictures, scenes),
        "diversity": diversity(pipe, folder / "diversity", seeds=min(12, count)),
        "sharpness": measure(pipe, min(96, count)),
        "told_apart": told_apart(pictures, paintings, steps=min(160, 2 * count)),
        "missed": missed(judge, pictures, scenes),
    }
    write_json(folder / "report.json", report)
    say(f"evaluated {count} prompts: {report['seen_as_asked']} {report['diversity']}")
    return read_json(folder / "report.json")
