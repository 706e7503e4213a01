"""The model card, filled in from the reports of a run."""

from __future__ import annotations

from pathlib import Path

from ..default_model.card import folder_size
from ..default_model.data import read_json
from .scenes import COLOURS, MOTIONS, PLACES, SUBJECTS
from .settings import Part, Recipe

_TEMPLATE = Path(__file__).parent / "card_template.md"


def render_card(run: Path, recipe: Recipe) -> str:
    """Return the card in Markdown, with the numbers of the reports in `run` and the settings."""
    vae, flow, judge, found = (
        read_json(run / name / "report.json") for name in ("vae", "flow", "judge", "evaluate")
    )
    words = read_json(run / "bundle" / "vocabulary.json")["words"]
    shape = recipe.flow.shape
    parts = {name: folder_size(run / "bundle" / name) for name in ("flow", "text_encoder", "vae")}
    return _TEMPLATE.read_text().format(
        frames=recipe.frames,
        fps=recipe.fps,
        words=len(words),
        motions=", ".join(MOTIONS),
        subjects=", ".join(SUBJECTS),
        places=", ".join(PLACES),
        colours=", ".join(COLOURS),
        layers=" + ".join(map(str, shape.layers_per_block)),
        blocks=len(shape.layers_per_block),
        width=shape.channels,
        latent_frames=shape.frames,
        tokens=shape.grid**2,
        token_size=shape.token_size,
        flow_size=parts["flow"],
        encoder_size=parts["text_encoder"],
        vae_size=parts["vae"],
        text_layers=recipe.text.layers,
        text_width=recipe.text.width,
        text_size=shape.text_size,
        base_dim=recipe.vae.base_dim,
        decoder_base_dim=recipe.vae.decoder_base_dim,
        latent_channels=recipe.vae.latent_channels,
        size=recipe.data.size,
        painted=recipe.data.frames,
        train=recipe.data.train,
        held_out=recipe.data.held_out,
        captions=recipe.data.captions,
        vae_parts="; ".join(_part(part) for part in recipe.vae.parts),
        flow_clips=flow["clips_seen"],
        stills=recipe.flow.stills,
        continued=recipe.flow.continued,
        noise_std=recipe.flow.noise_std,
        ema=recipe.flow.ema,
        dropped=recipe.flow.caption_dropout,
        guidance=recipe.guidance,
        prompts=found["prompts"],
        seen=found["seen_as_asked"],
        begun=found["image_to_video"],
        on=found["continued"],
        on_painted=found["continued_paintings"],
        motion=found["frame_difference"],
        accuracy=judge["held_out_accuracy"],
        psnr=vae["held_out_psnr"],
        train_bits=flow["train_bits"],
        held_out_bits=flow["held_out_bits"],
    )


def _part(part: Part) -> str:
    many = f"{part.batch * part.steps:,}"
    return f"{many} pictures" if part.frames == 1 else f"{many} clips of {part.frames} frames"


def write_card(run: Path, recipe: Recipe) -> None:
    (run / "bundle" / "MODEL_CARD.md").write_text(render_card(run, recipe))
