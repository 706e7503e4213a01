"""Tasks of the scheduler on given pictures: generators that yield the fraction done."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ..editing.edit import EditRequest, edit_steps, pasted, visibility
from ..editing.inputs import contexts_of, latents_of, prepared
from ..editing.interpolate import encoded_ends, frames_between, seeded_ends
from ..editing.vary import encode_pictures, varied
from ..exact.likelihood import normal_log_prob
from ..exact.scoring import Score, ScoreOptions, score_pictures
from ..generation.events import BlockProgress, Finished, Started
from ..generation.noise_file import noise_record
from ..pictures.heatmap import heatmap
from ..pipeline import Pipeline
from ..sampling import BlockResult
from ..version import __version__
from .job import Drawn, Task

LOG2_128 = 7.0  # difference in bits between densities over [-1, 1] and over 8-bit pixels
PRESENT = 64  # of 255: threshold for pixels of a mask that was scaled down


def edit_task(
    picture: Image.Image,
    mask: np.ndarray,
    prompt: str,
    seeds: Sequence[int],
    guidance: float | None,
    best_of: bool,
) -> Task:
    """Redraw the masked part of an RGB picture, once per seed, or keep only the best.
    mask (height, width): bools. The task returns a list of ``Drawn``."""

    def work(pipe: Pipeline) -> Generator[float, None, list[Drawn]]:
        fitted, ratio = prepared(pipe, picture, "crop")
        size = fitted.image.size
        small = _fitted_mask(mask, size)
        weight = _guidance(pipe, guidance, prompt)
        request = EditRequest(fitted.image, small, prompt, tuple(seeds), weight, ratio)
        blocks, done, steps = len(pipe.flow.blocks), 0, edit_steps(pipe, request)
        while True:
            try:
                event = next(steps)
            except StopIteration as stop:
                made = stop.value
                break
            if isinstance(event, BlockResult):
                done += 1
                yield 0.9 * done / blocks
            else:
                yield 0.9 * (done + event.tokens_done / event.tokens_total) / blocks
        seen = visibility(pipe.flow.config, made.tokens)
        scores = [round(float(p), 3) for p in made.log_p]
        about = {
            **_about(pipe, "edit", prompt),
            "width": size[0],
            "height": size[1],
            "aspect_ratio": ratio,
            "guidance": weight,
            "tokens_drawn": int(made.tokens.sum()),
            "tokens": int(made.tokens.size),
            "kept_seen_by_all": seen.seen_by_all,
            "kept_seen_by_none": seen.seen_by_none,
        }
        if best_of:
            about["best_of"] = {"seeds": list(seeds), "scores": scores}
        rows = [made.best] if best_of else range(len(seeds))
        return [
            Drawn(
                _full_size(picture, made.images[i], mask),
                {**about, "seed": seeds[i], "log_p": scores[i]},
                seeds[i],
                None,
            )
            for i in rows
        ]

    return work


def vary_task(
    picture: Image.Image,
    prompt: str,
    strength: float,
    seeds: Sequence[int],
    guidance: float | None,
) -> Task:
    """Draw variations of an RGB picture: its noise is moved by ``strength`` (0 to 1) towards the
    noise of each seed. The task returns a list of ``Drawn``."""

    def work(pipe: Pipeline) -> Generator[float, None, list[Drawn]]:
        fitted, ratio = prepared(pipe, picture, "crop")
        weight = _guidance(pipe, guidance, prompt)
        made = encode_pictures(pipe, [fitted.image], [prompt], weight, ratio, noise_seed=seeds[0])
        yield 0.1
        noise = np.array(varied(made.z[0], strength, seeds))
        options: dict[str, Any] = {"guidance": weight, "aspect_ratio": ratio}
        before, finished = {}, None
        prompts = [prompt] * len(seeds)
        for event in pipe.stream(prompts, list(seeds), noise=noise, **options):
            if isinstance(event, Started):
                share = 0.0
                for phase in event.phases:
                    before[phase.name] = share, phase.share
                    share += phase.share
            elif isinstance(event, BlockProgress):
                start, part = before[event.phase]
                yield 0.1 + 0.9 * (start + part * event.tokens_done / event.tokens_total)
            elif isinstance(event, Finished):
                finished = event.result
        if finished is None:
            return []
        return [
            Drawn(
                finished.images[i],
                {
                    **finished.metadata_of(i),
                    "varied": {"strength": strength},
                    "noise": noise_record("", noise),
                },
                seeds[i],
                None,
            )
            for i in range(len(seeds))
        ]

    return work


def interpolate_task(
    ends: tuple[Image.Image, Image.Image] | tuple[int, int],
    prompts: Sequence[str],
    frames: int,
    guidance: float | None,
) -> Task:
    """Draw pictures between two RGB pictures, which are encoded exactly, or between the noises of
    two seeds. The task returns a list of pictures, both ends included."""

    def work(pipe: Pipeline) -> Generator[float, None, list[Image.Image]]:
        first, second = ends
        if isinstance(first, Image.Image) and isinstance(second, Image.Image):
            one, ratio = prepared(pipe, first, "crop")
            other = ImageOps.fit(second, one.image.size, Image.Resampling.LANCZOS)
            two, _ = prepared(pipe, other, "crop")
            made = encoded_ends(pipe, [one.image, two.image], prompts, guidance or 0.0, ratio)
            remove = False
        else:
            weight = _guidance(pipe, guidance, prompts[0])
            made = seeded_ends(pipe, [int(first), int(second)], prompts, weight)  # type: ignore[arg-type]
            remove = True
        yield 0.1
        drawn = []
        for frame in frames_between(pipe, made, frames, remove):
            drawn.append(frame.image)
            yield 0.1 + 0.9 * len(drawn) / frames
        return drawn

    return work


def score_task(picture: Image.Image, prompts: Sequence[str], draws: int, seed: int) -> Task:
    """Compute log p of an RGB picture under each prompt and without one, and a map of its surprise.
    The task returns a record for JSON and the map as a picture."""

    def work(pipe: Pipeline) -> Generator[float, None, tuple[dict[str, Any], Image.Image]]:
        fitted, ratio = prepared(pipe, picture, "crop")
        asked = list(dict.fromkeys(prompts or [""]))
        conditions = asked if asked == [""] else [*asked, ""]
        x = latents_of(pipe, [fitted.image])
        yield 0.2
        contexts = contexts_of(pipe, conditions, ratio)
        score = score_pictures(pipe.flow, x, contexts, ScoreOptions(draws=draws, seed=seed))[0]
        yield 0.9
        values = _bits_map(score, len(asked))
        record = _score_record(score, asked)
        record["notes"] = list(fitted.notes)
        record["map"] = {
            "rows": values.shape[0],
            "columns": values.shape[1],
            "unit": "bits/dim",
            "values": [[round(float(v), 4) for v in row] for row in values],
        }
        return record, heatmap(fitted.image, values, "bits/dim")

    return work


def encode_task(picture: Image.Image, prompt: str, guidance: float | None) -> Task:
    """Encode an RGB picture exactly as noise. The task returns a record for JSON."""

    def work(pipe: Pipeline) -> Generator[float, None, dict[str, Any]]:
        fitted, ratio = prepared(pipe, picture, "crop")
        yield 0.1
        made = encode_pictures(pipe, [fitted.image], [prompt], guidance or 0.0, ratio)
        z = made.z
        return {
            "prompt": prompt,
            "guidance": guidance or 0.0,
            "aspect_ratio": ratio,
            "notes": list(fitted.notes),
            "noise": noise_record("", np.array(z)),
            "log_prob_of_noise": float(np.array(normal_log_prob(z))[0]),
            "norm": float(np.linalg.norm(np.array(z))),
            "dimensions": int(z.size),
        }

    return work


def _about(pipe: Pipeline, command: str, prompt: str) -> dict[str, Any]:
    return {
        "generator": "mlx-starflow",
        "version": __version__,
        "command": command,
        "prompt": prompt,
        "model": pipe.name,
        "model_name": pipe.config.name,
        "weights": pipe.fingerprint,
    }


def _guidance(pipe: Pipeline, asked: float | None, prompt: str) -> float:
    if asked is not None:
        return asked
    return pipe.config.defaults.guidance if prompt else 0.0


def _fitted_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask cropped and scaled like the picture; a pixel is True if a quarter of it is."""
    if (mask.shape[1], mask.shape[0]) == size:
        return mask
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(ImageOps.fit(picture, size, Image.Resampling.BOX)) >= PRESENT


def _full_size(given: Image.Image, edited: Image.Image, mask: np.ndarray) -> Image.Image:
    """The edit scaled to the size of the given picture, with that picture's pixels outside the
    mask. If the picture was cropped or is smaller than the model's size, the edit as it is."""
    same_shape = given.width * edited.height == given.height * edited.width
    if given.size == edited.size or not same_shape or given.width < edited.width:
        return edited
    large = edited.convert("RGB").resize(given.size, Image.Resampling.LANCZOS)
    return pasted(given, large, mask)


def _bits_map(score: Score, count: int) -> np.ndarray:
    """Bits per dimension (rows, columns) of every token, for the best of the first ``count``
    prompts."""
    best = int(score.mean[:count].argmax())
    bits = score.surprise[best] * score.grid.tokens / score.numbers / np.log(2)
    offset = LOG2_128 if score.noise == "uniform" else 0.0
    return (bits + offset).reshape(score.grid.height, score.grid.width)


def _score_record(score: Score, prompts: Sequence[str]) -> dict[str, Any]:
    null = score.log_p.shape[0] - 1
    gain, gain_error = score.advantage(over=null)
    posterior = score.posterior(len(prompts))
    rows: list[dict[str, Any]] = [
        {
            "prompt": prompt,
            "log_p": float(score.mean[i]),
            "standard_error": _number(score.standard_error[i]),
            "bits_per_dim": float(score.bits_per_dim[i]),
            "nats_per_dim": float(score.nats_per_dim[i]),
            "posterior": float(posterior[i]),
            "gain": float(gain[i]),
            "gain_standard_error": _number(gain_error[i]),
        }
        for i, prompt in enumerate(prompts)
    ]
    rows.sort(key=lambda row: -row["log_p"])
    return {
        "prompts": rows,
        "log_p_null": float(score.mean[null]),
        "dimensions": score.numbers,
        "noise": score.noise,
        "noise_std": score.noise_std,
        "draws": score.draws,
        "seed": score.seed,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
