"""Measure whether samples chosen by likelihood match their prompt better, and whether edits match
theirs. The judge is the recipe's classifier, which was trained independently of the flow."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mlx_starflow.editing.edit import EditRequest, edit, pasted
from mlx_starflow.editing.inputs import contexts_of
from mlx_starflow.exact.scoring import surprise
from mlx_starflow.pipeline import Pipeline

from ..classifier import KINDS, Judge, labels_of, predict
from ..painter import SUBJECTS, Scene
from ..painter.layout import box_of
from .zero_shot import PLACE_PHRASES

CHOICES = (1, 4, 16)


def best_of(
    pipe: Pipeline, judge: Judge, prompts: list[str], scenes: list[Scene]
) -> dict[str, dict[str, float]]:
    """Shares of prompts whose subject, place and colour the judge recognizes in the chosen picture.

    The chosen picture is the one with the greatest gain log p(x | prompt) - log p(x | null) of 1, 4
    and 16 pictures, with the least gain of 16, and with the greatest log p(x | prompt) of 16. All
    rows use the same 16 pictures per prompt; the groups of 4 and of 1 are averaged.
    """
    total, asked = max(CHOICES), labels_of(scenes)
    right, gains, log_p = [], [], []
    for i, prompt in enumerate(prompts):
        result = pipe.generate(prompt, seed=1000 + i * total, num_images=total)
        nats = surprise(pipe.flow, result.latents, contexts_of(pipe, [prompt, ""])).sum(axis=-1)
        gains.append(nats[1] - nats[0])
        log_p.append(-nats[0])
        found = predict(judge, np.stack([np.asarray(image) for image in result.images]))
        right.append([found[kind] == asked[kind][i] for kind in KINDS])
    right, gains, log_p = np.array(right), np.array(gains), np.array(log_p)
    everything = right.all(axis=1, keepdims=True)
    right = np.concatenate([right, everything], axis=1).astype(float)  # (prompts, kinds + 1, 16)
    table = {}
    for n in CHOICES:
        table[f"best of {n}"] = _kept(right, gains, n)
    table[f"least of {total}"] = _kept(right, -gains, total)
    table[f"most probable of {total}"] = _kept(right, log_p, total)
    return table


def _kept(right: np.ndarray, scores: np.ndarray, n: int) -> dict[str, float]:
    """Shares of right answers over the pictures with the greatest score of each group of n."""
    prompts, kinds, total = right.shape
    kept = scores.reshape(prompts, total // n, n).argmax(axis=2)[:, None, :, None]
    grouped = right.reshape(prompts, kinds, total // n, n)
    shares = np.take_along_axis(grouped, kept, axis=3).mean(axis=(0, 2, 3))
    return dict(zip((*KINDS, "all at once"), shares.tolist(), strict=True))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def edits(
    pipe: Pipeline, judge: Judge, paintings: np.ndarray, scenes: list[Scene], draws: int
) -> dict[str, dict[str, float]]:
    """Replace the subject of each painting by another one.

    Returns how often the judge recognizes the new subject, the old one and the place, the share of
    redrawn pixels, the PSNR in dB of the kept pixels before the originals are pasted over them, and
    how often they equal the originals afterwards.
    """
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
