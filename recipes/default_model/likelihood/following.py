"""Whether likelihood chooses samples that follow their prompt better; and edits. The judge is the
recipe's classifier, which knows nothing of the flow."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mlx_starflow.edit import EditRequest, edit, pasted
from mlx_starflow.pipeline import Pipeline
from mlx_starflow.selection import advantages

from ..classifier import KINDS, Judge, labels_of, predict
from ..painter import SUBJECTS, Scene
from ..painter.layout import WIDTH, plan
from .zero_shot import PLACE_PHRASES

CHOICES = (1, 4, 16)


def best_of(
    pipe: Pipeline, judge: Judge, prompts: list[str], scenes: list[Scene]
) -> dict[str, dict[str, float]]:
    """Shares of prompts whose subject, place and colour the judge finds in the picture kept out of
    1, 4 and 16; also of the least likely of 16. The same 16 pictures serve all rows: the groups
    of 4 and the single pictures are averaged over."""
    total, asked = max(CHOICES), labels_of(scenes)
    right, gains = [], []
    for i, prompt in enumerate(prompts):
        result = pipe.generate(prompt, seed=1000 + i * total, num_images=total)
        gains.append(advantages(pipe, result))
        found = predict(judge, np.stack([np.asarray(image) for image in result.images]))
        right.append([found[kind] == asked[kind][i] for kind in KINDS])
    right, gains = np.array(right), np.array(gains)  # (prompts, kinds, 16), (prompts, 16)
    everything = right.all(axis=1, keepdims=True)
    right = np.concatenate([right, everything], axis=1).astype(float)
    names = [*KINDS, "all three"]
    table = {}
    for n in CHOICES:
        parts = gains.reshape(len(prompts), -1, n)
        kept = parts.argmax(axis=2)[:, None, :, None]
        grouped = right.reshape(len(prompts), len(names), -1, n)
        table[f"best of {n}"] = _row(names, np.take_along_axis(grouped, kept, axis=3))
    worst = gains.argmin(axis=1)[:, None, None]
    table[f"least of {total}"] = _row(names, np.take_along_axis(right, worst, axis=2))
    return table


def _row(names: list[str], values: np.ndarray) -> dict[str, float]:
    return {name: float(values[:, i].mean()) for i, name in enumerate(names)}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def box_of(scene: Scene, size: int) -> np.ndarray:
    """(size, size) bools: a box around the subject of a scene with one subject."""
    spot = plan(scene, np.random.default_rng([scene.seed, 1])).spots[0]
    half = 0.5 * max(WIDTH[scene.subject], 1.0) * spot.height + 0.06
    rows = (spot.base - spot.height - 0.08, spot.base + 0.08)
    y, x = (np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size
    inside = ((y >= rows[0]) & (y <= rows[1]))[:, None] & (np.abs(x - spot.x) <= half)[None]
    return inside


def edits(
    pipe: Pipeline, judge: Judge, paintings: np.ndarray, scenes: list[Scene], draws: int
) -> dict[str, dict[str, float]]:
    """Paint another subject over the one in the picture: how often the judge finds it, the one
    that was there and the place; and the kept pixels' PSNR before they are put back."""
    rows: dict[str, list[list[float]]] = {"one draw": [], f"most probable of {draws}": []}
    rng = np.random.default_rng(11)
    for painting, scene in zip(paintings, scenes, strict=True):
        others = [s for s in SUBJECTS if s != scene.subject]
        subject = others[int(rng.integers(len(others)))]
        mask = box_of(scene, painting.shape[0])
        before = Image.fromarray(painting)
        request = EditRequest(
            before,
            mask,
            f"a {subject} {PLACE_PHRASES[scene.place]}",
            tuple(range(draws)),
            pipe.config.defaults.guidance,
            paste=False,
        )
        made = edit(pipe, request)
        for row, i in zip(rows.values(), (0, made.best), strict=True):
            picture = np.asarray(pasted(before, made.images[i], mask))
            found = {k: KINDS[k][int(v[0])] for k, v in predict(judge, picture[None]).items()}
            row.append(
                [
                    found["subject"] == subject,
                    found["subject"] == scene.subject,
                    found["place"] == scene.place,
                    mask.mean(),
                    psnr(np.asarray(made.images[i])[~mask], painting[~mask]),
                    float(np.array_equal(picture[~mask], painting[~mask])),
                ]
            )
    names = ["new subject", "old subject", "place", "share painted", "kept PSNR", "kept exactly"]
    return {
        title: dict(zip(names, np.mean(values, axis=0).tolist(), strict=True))
        for title, values in rows.items()
    }
