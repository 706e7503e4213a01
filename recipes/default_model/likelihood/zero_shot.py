"""Zero-shot classification of paintings by their likelihood with different captions, and the effect
of the number of noise draws."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from PIL import Image

from mlx_starflow.editing.inputs import contexts_of, latents_of
from mlx_starflow.exact.scoring import Score, ScoreOptions, score_pictures
from mlx_starflow.pipeline import Pipeline

from ..known import read_vocabulary
from ..painter import Scene

# For each place, one phrase that occurs in the training captions.
PLACE_PHRASES = {
    "snow": "in snow", "forest": "in a forest", "desert": "in the desert", "beach": "on the beach",
    "meadow": "in a meadow", "mountains": "in the mountains", "city": "in the city",
    "night sky": "in the night sky", "sea": "in the sea", "sky": "in the sky",
}  # fmt: skip


def zero_shot(
    pipe: Pipeline, paintings: np.ndarray, scenes: list[Scene], draws: int
) -> dict[str, dict[str, float]]:
    """Accuracy with 1, 2, 4, ... ``draws`` noise draws: of the subject, with the prompts
    "a SUBJECT", and of the place, with the prompts "a SUBJECT PLACE" and the subject found
    before. Only subjects and places that the bundle knows are candidates."""
    known = read_vocabulary(pipe.directory)
    subjects, places = known["subject"], known["place"]
    options = ScoreOptions(draws=draws)
    x = latents_of(pipe, [Image.fromarray(p) for p in paintings])
    by_subject = score_pictures(
        pipe.flow, x, contexts_of(pipe, [f"a {s}" for s in subjects]), options
    )
    counts = [2**i for i in range(draws.bit_length()) if 2**i <= draws]
    table: dict[str, dict[str, float]] = {}
    found = {k: [_best(s, k) for s in by_subject] for k in counts}
    by_place = _places(pipe, x, [subjects[i] for i in found[draws]], places, options)
    for k in counts:
        right = [subjects[i] == scene.subject for i, scene in zip(found[k], scenes, strict=True)]
        best = [_best(s, k) for s in by_place]
        placed = [places[i] == scene.place for i, scene in zip(best, scenes, strict=True)]
        table[str(k)] = {"subject": float(np.mean(right)), "place": float(np.mean(placed))}
    table["chance"] = {"subject": 1 / len(subjects), "place": 1 / len(places)}
    return table


def _best(score: Score, draws: int) -> int:
    return int(score.log_p[:, :draws].mean(axis=1).argmax())


def _places(
    pipe: Pipeline, x: mx.array, subjects: list[str], places: list[str], options: ScoreOptions
) -> list[Score]:
    scores: list[Score | None] = [None] * len(subjects)
    for subject in dict.fromkeys(subjects):
        rows = [i for i, s in enumerate(subjects) if s == subject]
        prompts = [f"a {subject} {PLACE_PHRASES[place]}" for place in places]
        part = score_pictures(pipe.flow, x[mx.array(rows)], contexts_of(pipe, prompts), options)
        for i, score in zip(rows, part, strict=True):
            scores[i] = score
    return scores


def draws_and_errors(
    pipe: Pipeline, paintings: np.ndarray, captions: list[str], draws: int
) -> dict[str, dict[str, float]]:
    """Standard error, in nats, of the mean over K noise draws, for K = 1, 2, 4, ...: for
    log p(x | caption), and for its difference from log p(x) with the null caption and the same
    draws.

    It is computed as the standard deviation of the means of disjoint groups of K of all ``draws``
    draws, as a root mean square over the paintings.
    """
    rows = []
    for picture, caption in zip(paintings, captions, strict=True):
        x = latents_of(pipe, [Image.fromarray(picture)])
        contexts = contexts_of(pipe, [caption, ""])
        rows.append(score_pictures(pipe.flow, x, contexts, ScoreOptions(draws=draws))[0].log_p)
    log_p = np.stack(rows)  # (N, 2, K)
    both = np.stack([log_p[:, 0], log_p[:, 0] - log_p[:, 1]], axis=1)
    between = both.mean(axis=2).std(axis=0, ddof=1)
    table = {}
    for k in (k for k in (1, 2, 4, 8, 16, 32) if 2 * k <= draws):
        groups = both[:, :, : draws // k * k].reshape(len(both), 2, -1, k).mean(axis=3)
        spread = np.sqrt(groups.var(axis=2, ddof=1).mean(axis=0))
        table[str(k)] = {"log p": float(spread[0]), "gain": float(spread[1])}
    table["between paintings"] = {"log p": float(between[0]), "gain": float(between[1])}
    return table
