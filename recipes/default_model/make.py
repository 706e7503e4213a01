"""``python -m recipes.default_model.make``: make the embedded model, stage by stage.

Finished work is skipped, and an interrupted stage continues where it stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from diffusers import AutoencoderKL

from . import settings
from .card import write_card
from .classifier import fit_classifier, load_classifier
from .data import is_painted, open_pictures, paint_split, read_json, read_scenes, write_json
from .evaluate import evaluate_bundle
from .export import add_step_weights, convert_bundle, export_files
from .latents import encode_split, open_latents, tokenize_split, write_latent_report
from .painter import vocabulary
from .parallel import launch, rank
from .polish import latents_for_polish, polish_decoder
from .settings import Recipe
from .text import build_tokenizer
from .train import load_averaged, measured_bits, train_flow
from .vae import fit_autoencoder, keep_autoencoder
from .vae_decoder import fit_decoder
from .warm_start import start_encoder, start_flow, started_from

STAGES = ("paint", "vae", "encode", "flow", "polish", "classifier", "export", "evaluate")
_SPLITS = ("held_out", "train")


class Log:
    """Prints lines and appends them to the run's log file, with the time of day."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {text}"
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")


def _paint(run: Path, recipe: Recipe, log: Log) -> None:
    for split in _SPLITS:
        if not is_painted(run / "paint", split):
            paint_split(run / "paint", split, recipe.data, log)


def _vae_job(run: Path, recipe: Recipe, log: Log) -> None:
    pictures = (open_pictures(run / "paint", split) for split in ("train", "held_out"))
    fit_autoencoder(run / "vae", *pictures, recipe.vae, log)


def _decoder_job(run: Path, recipe: Recipe, log: Log) -> None:
    pictures = (open_pictures(run / "paint", split) for split in ("train", "held_out"))
    fit_decoder(run / "decoder", run / "vae" / "vae", *pictures, recipe.vae, log)


def _vae(run: Path, recipe: Recipe, log: Log) -> None:
    if not (run / "vae" / "report.json").exists():
        if recipe.vae.start and not recipe.vae.images:
            keep_autoencoder(run / "vae", open_pictures(run / "paint", "held_out"), recipe.vae)
        else:
            launch(_vae_job, (run, recipe, log), recipe.data.workers)
    log(f"vae {read_json(run / 'vae' / 'report.json')}")
    if recipe.vae.decoder_images and not (run / "decoder" / "report.json").exists():
        launch(_decoder_job, (run, recipe, log), recipe.data.workers)


def _encode(run: Path, recipe: Recipe, log: Log) -> None:
    if (run / "latents" / "report.json").exists():
        return
    model = AutoencoderKL.from_pretrained(run / "vae" / "vae").eval()
    tokenizer = build_tokenizer(vocabulary()["words"])
    for split in _SPLITS:
        encode_split(run / "latents", run / "paint", split, model, recipe.data, log)
        length = recipe.flow.shape.text_size
        tokenize_split(run / "latents", run / "paint", split, tokenizer, length)
    write_latent_report(run / "latents", "train")


def _flow_job(run: Path, recipe: Recipe, log: Log) -> None:
    train, held_out = (open_latents(run / "latents", split) for split in ("train", "held_out"))
    tokenizer = build_tokenizer(vocabulary()["words"])
    begin = _beginning(recipe, tokenizer.get_vocab()) if recipe.flow.start else None
    settings = recipe.flow, recipe.text
    train_flow(run / "flow", train, held_out, len(tokenizer), *settings, log, begin=begin)
    if rank() == 0:
        _flow_report(run, recipe, train, held_out, len(tokenizer))


def _beginning(recipe: Recipe, words: dict[str, int]):
    """Return a function that loads the weights of `recipe.flow.start` into flow and encoder."""
    bundle = Path(recipe.flow.start)

    def begin(flow, encoder) -> None:
        start_flow(flow, bundle, recipe.flow.start_channels)
        start_encoder(encoder, bundle, words)

    return begin


def _flow_report(run: Path, recipe: Recipe, train, held_out, words: int, count: int = 1000) -> None:
    flow, encoder, step = load_averaged(run / "flow", recipe.flow, recipe.text, words)
    noise = recipe.flow.noise_std
    report = {"step": step, "images_seen": step * recipe.flow.batch}
    for name, data in (("train_bits", train), ("held_out_bits", held_out)):
        report[name] = measured_bits(flow, encoder, data, noise, count)
    write_json(run / "flow" / "report.json", report)


def _flow(run: Path, recipe: Recipe, log: Log) -> None:
    if not (run / "flow" / "report.json").exists():
        launch(_flow_job, (run, recipe, log), recipe.data.workers)


def _polish(run: Path, recipe: Recipe, log: Log) -> None:
    if not recipe.polish.steps or (run / "polish" / "vae").exists():
        return
    tokenizer = build_tokenizer(vocabulary()["words"])
    flow, encoder, _ = load_averaged(run / "flow", recipe.flow, recipe.text, len(tokenizer))
    kinds = latents_for_polish(
        run / "polish",
        flow,
        encoder,
        open_latents(run / "latents", "train"),
        recipe.polish,
        recipe.flow.noise_std,
        recipe.guidance,
        log,
    )
    model = AutoencoderKL.from_pretrained(_vae_folder(run))
    pictures = open_pictures(run / "paint", "train")
    polish_decoder(run / "polish", model, kinds, pictures, recipe.polish, log)


def _classifier_job(run: Path, recipe: Recipe, log: Log) -> None:
    train, held_out = (
        (open_pictures(run / "paint", split), read_scenes(run / "paint", split)[0])
        for split in ("train", "held_out")
    )
    fit_classifier(run / "classifier", train, held_out, recipe.classifier, log)


def _classifier(run: Path, recipe: Recipe, log: Log) -> None:
    if not (run / "classifier" / "report.json").exists():
        launch(_classifier_job, (run, recipe, log), recipe.data.workers)


def _vae_folder(run: Path) -> Path:
    """The autoencoder to ship: the one with the decoder that was trained last."""
    folders = (run / name / "vae" for name in ("polish", "decoder", "vae"))
    return next(folder for folder in folders if folder.exists())


def _export(run: Path, recipe: Recipe, log: Log) -> None:
    tokenizer = build_tokenizer(vocabulary()["words"])
    step = export_files(run / "export", run / "flow", _vae_folder(run), tokenizer, recipe)
    convert_bundle(run / "export", run / "bundle", recipe)
    add_step_weights(run / "bundle", open_pictures(run / "paint", "held_out")[:8])
    size = sum(path.stat().st_size for path in (run / "bundle").rglob("*") if path.is_file())
    log(f"exported step {step}: {run / 'bundle'}, {size / 1e6:.1f} MB")


def _evaluate(run: Path, recipe: Recipe, log: Log) -> None:
    judge = load_classifier(run / "classifier")
    evaluate_bundle(run / "evaluate", run / "bundle", judge, recipe.evaluated, log)
    write_card(run, recipe)


_RUN: dict[str, Callable[[Path, Recipe, Log], None]] = {
    "paint": _paint,
    "vae": _vae,
    "encode": _encode,
    "flow": _flow,
    "polish": _polish,
    "classifier": _classifier,
    "export": _export,
    "evaluate": _evaluate,
}


def run_stages(run: Path, recipe, functions: dict[str, Callable], stages: tuple[str, ...]) -> None:
    """Run the chosen stages, in the order of ``functions``, with a log in RUN/log.txt."""
    run.mkdir(parents=True, exist_ok=True)
    log = Log(run / "log.txt")
    for stage, function in functions.items():
        if stage in stages:
            log(f"stage {stage}")
            function(run, recipe, log)


def make(run: Path, recipe: Recipe, stages: tuple[str, ...] = STAGES) -> None:
    """Run the stages in order. Writes the bundle to RUN/bundle, the report to RUN/evaluate."""
    run_stages(run, recipe, _RUN, stages)


def stage_parser(description: str, stages: tuple[str, ...]) -> argparse.ArgumentParser:
    """A parser of the options that all recipes have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--toy", action="store_true", help="tiny sizes, to test the stages")
    parser.add_argument("--run", type=Path, help="folder of this run")
    parser.add_argument(
        "--stage", action="append", choices=stages, help="run only this stage; repeatable"
    )
    return parser


def main() -> None:
    parser = stage_parser("Make the embedded model.", STAGES)
    parser.add_argument(
        "--start",
        type=Path,
        help="a bundle whose autoencoder, flow and encoder are trained further",
    )
    options = parser.parse_args()
    name = "toy" if options.toy else "main"
    run = options.run or Path(__file__).parent / "runs" / name
    recipe = settings.toy() if options.toy else settings.full()
    if options.start:
        recipe = started_from(recipe if options.toy else settings.further(), options.start)
    make(run, recipe, tuple(options.stage or STAGES))


if __name__ == "__main__":
    main()
