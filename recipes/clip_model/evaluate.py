"""Whether the bundle's clips show what prompts ask for, and whether they begin and go on well."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..default_model.data import read_json, write_json
from .captions import clip_caption, tells_all
from .judge import Judge, missed, shares
from .painting import paint_clip
from .scenes import Clip, random_clip
from .settings import Recipe
from .vae import frame_psnr


def random_prompts(count: int, seed: int) -> tuple[list[str], list[Clip]]:
    """Random clips with other seeds than in training, and captions that tell all of them."""
    prompts, clips = [], []
    for i in range(count):
        rng = np.random.default_rng([seed, i, 7])
        clip = random_clip(rng)
        text = clip_caption(clip, rng)
        while not tells_all(text, clip):
            text = clip_caption(clip, rng)
        prompts.append(text)
        clips.append(clip)
    return prompts, clips


def draw(pipe, prompts: list[str], folder: Path, **options) -> np.ndarray:
    """Clips (B, M, H, W, 3) of the pipeline, prompt i with seed i; each is stored in `folder`.

    Options that are lists have a value for each prompt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for i, prompt in enumerate(prompts):
        path = folder / f"{i:04d}.npy"
        if not path.exists():
            own = {k: v[i] if isinstance(v, list) else v for k, v in options.items()}
            np.save(path, pipe.generate(prompt, seed=i, progress=False, **own).clips[0])
        shown.append(np.load(path))
    return np.stack(shown)


def reconstructed(vae, clips: np.ndarray) -> np.ndarray:
    """Clips (B, M, H, W, 3) uint8 → encoded and decoded by the bundle's autoencoder, in [0, 1]."""
    import mlx.core as mx

    parts = []
    for clip in clips:
        pixels = mx.array(clip[None].astype(np.float32) / 127.5 - 1)
        parts.append((np.array(mx.clip(vae.decode(vae.encode(pixels)), -1, 1))[0] + 1) / 2)
    return np.stack(parts)


def beginnings(pipe, folder: Path, prompts: list[str], painted: np.ndarray) -> dict[str, float]:
    """Draw clips that begin with a painted frame. How similar is their first frame to it, and how
    similar is the autoencoder's reconstruction of it?"""
    frames = painted.shape[1]
    shown = draw(pipe, prompts, folder, frames=frames, image=list(painted[:, 0]))
    first = painted[:, :1]
    own = frame_psnr(first, shown[:, :1] / np.float32(255))
    return {
        "given frame, psnr": float(own.mean()),
        "the autoencoder's psnr": float(frame_psnr(first, reconstructed(pipe.vae, first)).mean()),
    }


def seams(shown: np.ndarray, window: int, new: int) -> dict[str, float]:
    """Mean absolute differences of neighbouring frames of continued clips (B, M, H, W, 3).

    A seam is where a later window begins: ``new`` frames after another, the first after
    ``window`` frames.
    """
    steps = np.abs(np.diff(shown.astype(np.float32), axis=1)).mean((0, 2, 3, 4))
    at = np.arange(window - 1, len(steps), new)
    others = np.setdiff1d(np.arange(len(steps)), at)
    # Decoded frames come in groups of four also where nothing is continued.
    groups = np.setdiff1d(np.arange(0, len(steps), 4), at)
    result = {"at seams": steps[at].mean(), "elsewhere": steps[others].mean()}
    result["between groups in the first window"] = steps[groups].mean()
    result["ratio"] = result["at seams"] / result["elsewhere"]
    return {name: float(value) for name, value in result.items()}


def evaluate_bundle(
    folder: Path, bundle: Path, judge: Judge, recipe: Recipe, say=lambda line: None, seed: int = 11
) -> dict:
    """Return the measurements of the model card, and write them to ``report.json``."""
    import mlx_starflow as sf
    from mlx_starflow.sampling import SampleOptions

    count, frames = recipe.evaluated, recipe.frames
    few, fewer = max(2, count // 5), max(2, count // 10)
    long = 3 * frames - 2  # of the continued clips
    prompts, clips = random_prompts(count, seed)
    painted = np.stack([paint_clip(c, recipe.data.size, long) for c in clips])
    with sf.load(bundle) as pipe:
        shown = draw(pipe, prompts, folder / "clips", frames=frames)
        begun = beginnings(pipe, folder / "begun", prompts[:few], painted[:few, :frames])
        begun_shown = np.stack([np.load(folder / "begun" / f"{i:04d}.npy") for i in range(few)])
        starts = list(painted[:fewer, :frames])
        gone_on = draw(pipe, prompts[:fewer], folder / "continued", frames=long, video=starts)
    context = min(SampleOptions().context_frames, recipe.flow.window - 1)
    new = 4 * (recipe.flow.window - context)
    report = {
        "prompts": count,
        "seen_as_asked": shares(judge, shown, clips, recipe.judge),
        "paintings_seen_as_asked": shares(judge, painted, clips, recipe.judge),
        "image_to_video": {
            **begun,
            "seen_as_asked": shares(judge, begun_shown, clips[:few], recipe.judge),
        },
        "continued": {"clips": fewer, "frames": long, "new": new, **seams(gone_on, frames, new)},
        "continued_paintings": seams(painted[:fewer], frames, new),
        "frame_difference": {"samples": _motion(shown), "paintings": _motion(painted[:, :frames])},
        "missed": missed(judge, shown, clips, recipe.judge),
    }
    write_json(folder / "report.json", report)
    say(f"evaluated {count} prompts: {report['seen_as_asked']} {report['continued']}")
    return read_json(folder / "report.json")


def _motion(shown: np.ndarray) -> float:
    return float(np.abs(np.diff(shown.astype(np.float32), axis=1)).mean())
