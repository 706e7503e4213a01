"""The model card, filled in from the reports of a run."""

from __future__ import annotations

from pathlib import Path

from .data import read_json
from .painter import COLOURS, PLACES, SUBJECTS
from .settings import Recipe

_TEMPLATE = Path(__file__).parent / "card_template.md"


def folder_size(folder: Path) -> str:
    return f"{sum(p.stat().st_size for p in folder.iterdir() if p.is_file()) / 1e6:.1f} MB"


def _distances(row: dict) -> str:
    return " / ".join(f"{d:.0f}" for d in row["distances"])


def _vae_training(recipe: Recipe) -> str:
    """What this run trained of the autoencoder, as a sentence; "" for nothing."""
    parts = []
    if recipe.vae.images:
        parts.append(f"{recipe.vae.images:,} pictures")
    if recipe.vae.decoder_images:
        parts.append(f"{recipe.vae.decoder_images:,} for its decoder alone")
    if recipe.polish.steps:
        parts.append(f"{recipe.polish.steps:,} steps of its decoder on latents from the flow")
    return f"VAE: {', then '.join(parts)}. " if parts else ""


def render_card(run: Path, recipe: Recipe) -> str:
    """Return the card in Markdown, with the numbers of the reports in `run` and the settings."""
    vae, flow, judge, found = (
        read_json(run / name / "report.json") for name in ("vae", "flow", "classifier", "evaluate")
    )
    shape, bundle = recipe.flow.shape, run / "bundle"
    return _TEMPLATE.read_text().format(
        size=recipe.data.size,
        subjects=", ".join(SUBJECTS),
        places=", ".join(PLACES),
        colours=", ".join(COLOURS),
        words=found["words"],
        blocks=len(shape.layers_per_block),
        layers=" + ".join(map(str, shape.layers_per_block)),
        width=shape.channels,
        tokens=shape.grid**2,
        token_size=shape.token_size,
        soft_clip=shape.soft_clip,
        flow_size=folder_size(bundle / "flow"),
        text_layers=recipe.text.layers,
        text_width=recipe.text.width,
        text_size=shape.text_size,
        encoder_size=folder_size(bundle / "text_encoder"),
        latent_channels=recipe.vae.latent_channels,
        vae_size=folder_size(bundle / "vae"),
        train=recipe.data.train,
        captions=recipe.data.captions,
        held_out=recipe.data.held_out,
        vae_training=_vae_training(recipe),
        flow_images=flow["images_seen"],
        noise_std=recipe.flow.noise_std,
        dropped=recipe.flow.caption_dropout,
        ema=recipe.flow.ema,
        compute=recipe.compute,
        guidance=recipe.guidance,
        prompts=found["prompts"],
        seen=found["seen_as_asked"],
        all_at_once=found["seen_as_asked"]["all at once"],
        accuracy=judge["held_out_accuracy"],
        train_bits=flow["train_bits"],
        held_out_bits=flow["held_out_bits"],
        gap=flow["held_out_bits"] / flow["train_bits"] - 1,
        sharp=found["sharpness"],
        told_apart=found["told_apart"],
        begun=recipe.begun,
        spread=found["diversity"],
        distances={k: _distances(v) for k, v in found["sharpness"].items() if k != "captions"},
    )


def write_card(run: Path, recipe: Recipe) -> None:
    (run / "bundle" / "MODEL_CARD.md").write_text(render_card(run, recipe))
