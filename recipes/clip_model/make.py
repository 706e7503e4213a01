"""``python -m recipes.clip_model.make``: make the model of clips, stage by stage.

Finished work is skipped, and an interrupted stage continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..default_model.data import is_painted, open_pictures, read_json, write_json
from ..default_model.latents import write_latent_report
from ..default_model.make import Log, run_stages, stage_parser
from ..default_model.parallel import launch, rank
from ..default_model.tokenizer import build_tokenizer
from ..default_model.train import load_averaged, measured_bits, train_flow
from . import settings
from .captions import LEXICON, clip_vocabulary
from .card import write_card
from .data import (
    encode_clips,
    open_latents,
    paint_clips,
    read_clips,
    temporal_scale,
    tokenize_clips,
)
from .evaluate import evaluate_bundle
from .export import convert_bundle, export_files
from .judge import fit_judge, load_judge
from .settings import Recipe
from .train import ClipTrainer
from .vae import encode_means, fit_autoencoder, scaled

_SPLITS = ("held_out", "train")


def _tokenizer():
    return build_tokenizer(clip_vocabulary()["words"], LEXICON)


def _paint(run: Path, recipe: Recipe, log: Log) -> None:
    for split in _SPLITS:
        if not is_painted(run / "paint", split):
            paint_clips(run / "paint", split, recipe.data, log)


def _vae_job(run: Path, recipe: Recipe, log: Log) -> None:
    clips = (open_pictures(run / "paint", split) for split in ("train", "held_out"))
    fit_autoencoder(run / "vae", *clips, recipe.vae, log)


def _vae(run: Path, recipe: Recipe, log: Log) -> None:
    if not (run / "vae" / "report.json").exists():
        launch(_vae_job, (run, recipe, log), recipe.data.workers)
    log(f"vae {read_json(run / 'vae' / 'report.json')}")


def _encode_job(run: Path, recipe: Recipe, log: Log) -> None:
    from diffusers import AutoencoderKLWan

    model = AutoencoderKLWan.from_pretrained(run / "vae" / "vae").eval()
    later = temporal_scale(run / "vae")

    def encode(clips, flip: bool):
        return scaled(encode_means(model, clips, flip=flip), model, later)

    encode_clips(run / "latents", run / "paint", encode, log)


def _encode(run: Path, recipe: Recipe, log: Log) -> None:
    folder, length = run / "latents", recipe.flow.shape.text_size
    if (folder / "report.json").exists():
        return
    launch(_encode_job, (run, recipe, log), recipe.data.workers)
    for split in _SPLITS:
        tokenize_clips(folder, run / "paint", split, _tokenizer(), length, recipe.fps)
    write_latent_report(folder, "train", open_latents(folder, "train")[0])


def _flow_job(run: Path, recipe: Recipe, log: Log) -> None:
    train, held_out = (open_latents(run / "latents", split) for split in ("train", "held_out"))
    words = len(_tokenizer())
    train_flow(
        run / "flow", train, held_out, words, recipe.flow, recipe.text, log, kind=ClipTrainer
    )
    if rank() == 0:
        flow, encoder, step = load_averaged(run / "flow", recipe.flow, recipe.text, words)
        report = {"step": step, "clips_seen": step * recipe.flow.batch}
        for name, (latents, tokens) in (("train_bits", train), ("held_out_bits", held_out)):
            part = latents[:, : recipe.flow.window], tokens
            report[name] = measured_bits(flow, encoder, part, recipe.flow.noise_std, 600)
        write_json(run / "flow" / "report.json", report)


def _flow(run: Path, recipe: Recipe, log: Log) -> None:
    if not (run / "flow" / "report.json").exists():
        launch(_flow_job, (run, recipe, log), recipe.data.workers)


def _judge_job(run: Path, recipe: Recipe, log: Log) -> None:
    train, held_out = (
        (open_pictures(run / "paint", split), read_clips(run / "paint", split)[0])
        for split in ("train", "held_out")
    )
    fit_judge(run / "judge", train, held_out, recipe.judge, log)


def _judge(run: Path, recipe: Recipe, log: Log) -> None:
    if not (run / "judge" / "report.json").exists():
        launch(_judge_job, (run, recipe, log), recipe.data.workers)


def _export(run: Path, recipe: Recipe, log: Log) -> None:
    step = export_files(run / "export", run, _tokenizer(), recipe)
    convert_bundle(run / "export", run / "bundle", recipe)
    size = sum(path.stat().st_size for path in (run / "bundle").rglob("*") if path.is_file())
    log(f"exported step {step}: {run / 'bundle'}, {size / 1e6:.1f} MB")


def _evaluate(run: Path, recipe: Recipe, log: Log) -> None:
    judge = load_judge(run / "judge", recipe.judge)
    evaluate_bundle(run / "evaluate", run / "bundle", judge, recipe, log)
    write_card(run, recipe)


_RUN: dict[str, Callable[[Path, Recipe, Log], None]] = dict(
    paint=_paint, vae=_vae, encode=_encode, flow=_flow, judge=_judge, export=_export
)
_RUN["evaluate"] = _evaluate
STAGES = tuple(_RUN)


def make(run: Path, recipe: Recipe, stages: tuple[str, ...] = STAGES) -> None:
    """Run the stages in order. Writes the bundle to RUN/bundle, the report to RUN/evaluate."""
    run_stages(run, recipe, _RUN, stages)


def main() -> None:
    parser = stage_parser("Make the model of clips.", STAGES)
    options = parser.parse_args()
    name = "toy" if options.toy else "main"
    run = options.run or Path(__file__).parent / "runs" / name
    make(run, settings.toy() if options.toy else settings.full(), tuple(options.stage or STAGES))


if __name__ == "__main__":
    main()
