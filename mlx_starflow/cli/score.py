"""``mlx-starflow score``: log-likelihoods of pictures, and which prompt fits best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..errors import Interrupted, StarflowError, UsageError
from ..exact.scoring import Score, ScoreOptions
from ..files.counted import counted
from ..generation.length import clips_of
from ..pictures.heatmap import heatmap
from ..pictures.metadata import save_picture
from ..pictures.read import Picture, pictures_in
from ..version import __version__
from . import options as o
from .console import Console
from .membership import ranks
from .options import HOW, OUTPUT, WHAT, option
from .outputs import check_output
from .picture_options import Fit, FitOption, Images, open_model
from .prompts import check_quotes, tell_prompts
from .rank_options import RankFlags, SplitBy, SplitOption, split_of
from .score_ranks import score_over_ranks
from .scoring import Scoring
from .tables import aligned

EPILOG = """\b
Examples:
  mlx-starflow score fox.png
  mlx-starflow score fox.png --prompt "a fox in snow" --prompt "a cat in snow"
  mlx-starflow score paintings/ --json
  mlx-starflow score fox.png --prompt "a fox in snow" --map surprise.png
  mlx-starflow score fox.mp4 --clips --model my-model --prompt "a fox walks in snow"

What the numbers mean: a latent model is trained on latents with added noise, so the score is the
density of the latents with this noise: a mean over --draws noise draws, with its standard error.
It is not the probability of the clean picture, and bits per dimension may be negative. For a
TarFlow, bits per dimension are those of the 8-bit pixels, an upper bound on their coding cost
(uniform dequantisation). The likelihood says how ordinary the details of a picture are, not how
good it looks: simple pictures have high scores (docs/likelihood.md). The posterior is the
probability of each prompt given the picture, if all are equally probable a priori.
"""
Prompts = Annotated[
    list[str] | None,
    option("--prompt", panel=WHAT, metavar="TEXT", help="What the picture may show. Repeat it to "
            "compare several prompts. Default: no prompt (the null caption)."),
]  # fmt: skip
Draws = Annotated[
    int,
    option("--draws", panel=HOW, metavar="K", min=1, help="Number of noise draws. Default: 8."),
]
Seed = Annotated[
    int,
    option("--seed", panel=HOW, metavar="N", min=0, help="Seed of the noise draws, the same for "
            "all pictures and prompts. Default: 0."),
]  # fmt: skip
NoNoise = Annotated[
    bool,
    option("--no-noise", panel=HOW, help="Add no noise. For pictures that already have it "
            "(generate --no-denoise, with a model of pixels)."),
]  # fmt: skip
Map = Annotated[
    Path | None,
    option("--map", panel=OUTPUT, metavar="FILE", help="Also save a map of the surprise of each "
            "token, for the best prompt. With several pictures: FILE_name."),
]  # fmt: skip
Clips = Annotated[
    bool,
    option("--clips", panel=WHAT, help="The files are clips (.mp4, animations, or folders of "
            "pictures); also the score of every latent frame given those before it."),
]  # fmt: skip
Fps = Annotated[
    int | None,
    option("--fps", panel=WHAT, metavar="F", min=1, help="Frames per second of the clips, as the "
            "model is told. Default: the model's."),
]  # fmt: skip


def score(
    images: Images,
    prompt: Prompts = None,
    draws: Draws = 8,
    seed: Seed = 0,
    no_noise: NoNoise = False,
    fit: FitOption = Fit.refuse,
    map_: Map = None,
    clips: Clips = False,
    fps: Fps = None,
    *,
    where: RankFlags,
    split: SplitOption = SplitBy.pictures,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Compute how probable pictures are: log p(picture | prompt), exactly, in one parallel pass.

    A table sorted by score goes to standard output: the log-likelihood in nats with its standard
    error, per dimension in nats and bits, the gain over no prompt, and with several prompts the
    probability of each.
    """
    where.start()
    console, group = Console(messages.quiet), ranks()
    if map_ is not None:
        check_output(map_)
    prompts = list(dict.fromkeys(prompt or [""]))
    options = ScoreOptions(draws=draws, seed=seed, noise="none" if no_noise else None)
    check_quotes(images, prompt)
    if clips and map_ is not None:
        raise UsageError("--map paints a picture; the scores of a clip are by frame.")
    if fps is not None and not clips:
        raise UsageError("--fps belongs to --clips.")
    work = Scoring(images if clips else pictures_in(images), prompts, options, fit, console)
    try:
        divided = split_of(split, group, "Scores have no guidance")
        with open_model(choice, console, divided) as pipe:
            if clips:
                known = clips_of(pipe.config, pipe.flow_config)
                work.as_clips(fps or known.fps[0])
            tell_prompts(pipe, prompts, console)
            if group is None:
                work.run(pipe)
            else:
                about = {"prompts": prompts, "draws": draws, "seed": seed, "noise": not no_noise,
                         "fit": fit.value, "clips": clips, "fps": fps}  # fmt: skip
                score_over_ranks(work, pipe, group, about, console, divided)
                if group.rank:
                    return
    except KeyboardInterrupt:
        # Print what is finished: a folder may have taken hours.
        _print(work, None, messages.json_, choice, console)
        done = f"after {len(work.found)} of {counted(len(work.paths), 'picture')}"
        kept = "their scores are above" if work.found else "no scores"
        raise Interrupted(f"Interrupted {done}; {kept}.") from None
    finally:
        console.clear()
    _print(work, map_, messages.json_, choice, console)
    if work.failed:
        raise StarflowError(
            f"{len(work.failed)} of {counted(len(work.paths), 'picture')} could not be scored."
        )


def _print(
    work: Scoring, map_: Path | None, as_json: bool, choice: o.ModelChoice, console: Console
) -> None:
    """Print the scores to standard output, and save the maps."""
    if not work.found:
        return
    first = work.found[0][1]
    console.say(_meaning(first))
    records = [_record(picture, score, work.prompts) for picture, score in work.found]
    records.sort(key=lambda r: -r["prompts"][0]["log_p"])
    about = {
        "noise": first.noise, "noise_std": first.noise_std, "draws": first.draws,
        "seed": first.seed,
    }  # fmt: skip
    maps = [] if map_ is None else _save_maps(work, map_, {**about, **_origin(choice)})
    if as_json:
        failed = {"failed": work.failed} if work.failed else {}
        typer.echo(json.dumps({"images": records, "maps": maps, **about, **failed}))
        return
    typer.echo(_table(records))
    for record in records:
        if "frames" in record:
            bits = " ".join(f"{value:.3f}" for value in record["frames"])
            typer.echo(f"{record['path']}, bits/dim of every latent frame: {bits}")
    for path in maps:
        typer.echo(path)


def _record(picture: Picture, score: Score, prompts: list[str]) -> dict[str, Any]:
    """The scores of one picture as values for JSON, highest-scoring prompt first."""
    rows: list[dict[str, Any]] = []
    null = score.log_p.shape[0] - 1
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
    curve = {}
    if score.grid.frames is not None:
        # In bits per dimension, as the whole.
        share = -score.by_frame[: len(prompts)] * score.grid.frames / score.numbers / np.log(2)
        best = int(score.mean[: len(prompts)].argmax())
        curve = {"frames": [round(float(bits), 5) for bits in share[best]]}
    return {
        "path": picture.path,
        **curve,
        "notes": list(picture.notes),
        "dimensions": score.numbers,
        "log_p_null": float(score.mean[null]),
        "prompts": rows,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _origin(choice: o.ModelChoice) -> dict[str, Any]:
    return {
        "generator": "mlx-starflow", "version": __version__, "command": "score",
        "model": choice.model or "default",
    }  # fmt: skip


def _save_maps(work: Scoring, map_: Path, about: dict[str, Any]) -> list[str]:
    return [_save_map(map_, p, s, work.prompts, len(work.found), about) for p, s in work.found]


def _save_map(
    path: Path,
    picture: Picture,
    score: Score,
    prompts: list[str],
    pictures: int,
    about: dict[str, Any],
) -> str:
    best = int(score.mean[: len(prompts)].argmax())
    own = {"source": picture.path, "prompts": prompts, "map_of": prompts[best]}
    bits = score.surprise[best] * score.grid.tokens / score.numbers / np.log(2)
    offset = 7.0 if score.noise == "uniform" else 0.0  # log2(128): from density to 8-bit pixels
    values = (bits + offset).reshape(score.grid.height, score.grid.width)
    if pictures > 1:
        path = path.with_name(f"{path.stem}_{Path(picture.path).stem}{path.suffix}")
    drawn = heatmap(picture.image, values, "bits/dim")
    return str(save_picture(drawn, path, {**about, **own}, overwrite=False))


def _meaning(score: Score) -> str:
    if score.noise == "gaussian":
        return (
            f"Scores of the latents with noise of standard deviation {score.noise_std:g} added, as "
            f"in training: means over {counted(score.draws, 'draw')} ± standard error."
        )
    if score.noise == "uniform":
        return (
            "Scores of 8-bit pixels, uniformly dequantised: means over "
            f"{counted(score.draws, 'draw')} ± standard error. Bits per dimension are an upper "
            "bound on the coding cost."
        )
    return "Scores of the pictures without added noise."


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
