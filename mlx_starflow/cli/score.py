"""``mlx-starflow score``: how probable pictures are, and which prompt fits best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..editing.inputs import contexts_of, latents_of
from ..exact.scoring import Score, ScoreOptions, score_pictures
from ..pictures.heatmap import heatmap
from ..pictures.metadata import save_picture
from ..pictures.read import Picture, pictures_in
from ..pipeline import Pipeline
from . import options as o
from .console import Console
from .options import HOW, OUTPUT, WHAT, option
from .outputs import check_output
from .picture_options import Fit, FitOption, open_model, take_picture
from .prompts import tell_prompts
from .tables import aligned

EPILOG = """\b
Examples:
  mlx-starflow score fox.png
  mlx-starflow score fox.png --prompt "a fox in snow" --prompt "a cat in snow"
  mlx-starflow score paintings/ --json
  mlx-starflow score fox.png --prompt "a fox in snow" --map surprise.png

What the numbers mean: a latent model gives the density of the latent with the noise of its
training added, so the score is a mean over --draws draws of that noise, with its standard error.
It is not the probability of the clean picture, and bits per dimension may be negative. A TarFlow
gives the bits per dimension of the 8-bit pixels, an upper bound of their coding cost (uniform
dequantisation). Likelihood measures how ordinary every detail is, not how good a picture looks:
simple pictures score high (see docs/likelihood.md). The posterior takes all prompts given as
equally probable beforehand.
"""
GROUP = 16  # pictures between two signs of progress

Images = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE...", rich_help_panel=WHAT, help="Pictures, or folders of pictures.",
        show_default=False,
    ),
]  # fmt: skip
Prompts = Annotated[
    list[str] | None,
    option("--prompt", panel=WHAT, metavar="TEXT", help="What the picture may show; several times "
            "for the posterior over several. Default: nothing said (the null caption)."),
]  # fmt: skip
Draws = Annotated[
    int,
    option("--draws", panel=HOW, metavar="K", min=1, help="Draws of the noise. Default: 8."),
]
Seed = Annotated[
    int,
    option("--seed", panel=HOW, metavar="N", min=0, help="Seed of the draws, the same for all "
            "pictures and prompts. Default: 0."),
]  # fmt: skip
NoNoise = Annotated[
    bool,
    option("--no-noise", panel=HOW, help="Score the picture as it is. For a picture that has its "
            "noise already (generate --no-denoise of a model of pixels)."),
]  # fmt: skip
Map = Annotated[
    Path | None,
    option("--map", panel=OUTPUT, metavar="FILE", help="Also a picture of where the surprise is, "
            "per token, under the best prompt. Several pictures: FILE_name."),
]  # fmt: skip


def score(
    images: Images,
    prompt: Prompts = None,
    draws: Draws = 8,
    seed: Seed = 0,
    no_noise: NoNoise = False,
    fit: FitOption = Fit.refuse,
    map_: Map = None,
    *,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Tell how probable pictures are: log p(picture | prompt), exactly, in one parallel pass.

    A table sorted by score goes to standard output: the log-likelihood in nats with its standard
    error, per dimension in nats and bits, what the prompt adds over no prompt, and with several
    prompts the probability of each.
    """
    console = Console(messages.quiet)
    if map_ is not None:
        check_output(map_)
    prompts = list(dict.fromkeys(prompt or [""]))
    options = ScoreOptions(draws=draws, seed=seed, noise="none" if no_noise else None)
    paths = pictures_in(images)
    with open_model(choice, console) as pipe:
        tell_prompts(pipe, prompts, console)
        try:
            scored = _score_all(pipe, paths, prompts, options, fit, console)
        finally:
            console.clear()
        console.say(_meaning(scored[0][1], len(scored)))
        records = [_record(picture, score, prompts) for picture, score in scored]
        maps = [_save_map(map_, p, s, len(prompts), len(scored)) for p, s in scored if map_]
    records.sort(key=lambda r: -r["prompts"][0]["log_p"])
    if messages.json_:
        first = scored[0][1]
        about = {
            "images": records, "maps": maps, "noise": first.noise, "noise_std": first.noise_std,
            "draws": first.draws, "seed": seed,
        }  # fmt: skip
        typer.echo(json.dumps(about))
        return
    typer.echo(_table(records))
    for path in maps:
        typer.echo(path)


def _score_all(
    pipe: Pipeline,
    paths: list[Path],
    prompts: list[str],
    options: ScoreOptions,
    fit: Fit,
    console: Console,
) -> list[tuple[Picture, Score]]:
    """Every picture under every prompt and, in the last row, the null caption."""
    conditions = prompts if prompts == [""] else [*prompts, ""]
    found: list[tuple[Picture, Score]] = []
    contexts: dict[str, Any] = {}
    pictures = [take_picture(pipe, path, fit, console) for path in paths]
    for start in range(0, len(pictures), GROUP):
        group = pictures[start : start + GROUP]
        for ratio in dict.fromkeys(r for _, r in group):
            if ratio not in contexts:
                contexts[ratio] = contexts_of(pipe, conditions, ratio)
            own = [p for p, r in group if r == ratio]
            x = latents_of(pipe, [p.image for p in own])
            scores = score_pictures(pipe.flow, x, contexts[ratio], options)
            found += zip(own, scores, strict=True)
            console.draw(
                "score", f"{len(found)}/{len(paths)} pictures", len(found) / len(paths), None
            )
    return found


def _record(picture: Picture, score: Score, prompts: list[str]) -> dict[str, Any]:
    """One picture's numbers as JSON, its prompts by falling score."""
    rows, null = [], score.log_p.shape[0] - 1
    gain, gain_error = score.advantage(over=null)
    posterior = score.posterior(len(prompts))
    for i, prompt in enumerate(prompts):
        rows.append(
            {
                "prompt": prompt,
                "log_p": float(score.mean[i]),
                "standard_error": _number(score.standard_error[i]),
                "nats_per_dim": float(score.nats_per_dim[i]),
                "bits_per_dim": float(score.bits_per_dim[i]),
                "posterior": float(posterior[i]),
                "gain": float(gain[i]),
                "gain_standard_error": _number(gain_error[i]),
            }
        )
    rows.sort(key=lambda r: -r["log_p"])
    return {
        "path": picture.path,
        "notes": list(picture.notes),
        "dimensions": score.numbers,
        "log_p_null": float(score.mean[null]),
        "prompts": rows,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _save_map(path: Path, picture: Picture, score: Score, count: int, pictures: int) -> str:
    best = int(score.mean[:count].argmax())
    bits = score.surprise[best] * score.grid.tokens / score.numbers / np.log(2)
    offset = 7.0 if score.noise == "uniform" else 0.0  # log2(128): from density to 8-bit pixels
    values = (bits + offset).reshape(score.grid.height, score.grid.width)
    if pictures > 1:
        path = path.with_name(f"{path.stem}_{Path(picture.path).stem}{path.suffix}")
    return str(save_picture(heatmap(picture.image, values, "bits/dim"), path, overwrite=False))


def _meaning(score: Score, pictures: int) -> str:
    if score.noise == "gaussian":
        return (
            f"Scores of the latent with noise of deviation {score.noise_std:g} added, as the model "
            f"was trained: means over {score.draws} draws, ± their standard error."
        )
    if score.noise == "uniform":
        return (
            f"Scores of 8-bit pixels, uniformly dequantised: means over {score.draws} draws, ± "
            "their standard error. Bits per dimension are an upper bound of the coding cost."
        )
    return "Scores of the pictures as they are, without noise."


def _table(records: list[dict[str, Any]]) -> str:
    several = any(len(r["prompts"]) > 1 for r in records)
    prompted = several or any(r["prompts"][0]["prompt"] for r in records)
    heads = ["image", "log p (nats)", "nats/dim", "bits/dim"]
    heads += ["over no prompt"] if prompted else []
    heads += ["posterior"] if several else []
    heads += ["prompt"] if prompted else []
    rows = [heads]
    for record in records:
        for i, entry in enumerate(record["prompts"]):
            row = [
                record["path"] if i == 0 else "",
                _with_error(entry["log_p"], entry["standard_error"]),
                f"{entry['nats_per_dim']:.4f}",
                f"{entry['bits_per_dim']:.4f}",
            ]
            if prompted:
                row.append(_with_error(entry["gain"], entry["gain_standard_error"], "+"))
            if several:
                row.append(f"{entry['posterior']:.4f}")
            if prompted:
                row.append(entry["prompt"])
            rows.append(row)
    return aligned(rows, left={0, len(heads) - 1} if prompted else {0})


def _with_error(value: float, error: float | None, sign: str = "") -> str:
    text = f"{value:{sign}.1f}"
    return text if error is None else f"{text} ± {error:.1f}"
