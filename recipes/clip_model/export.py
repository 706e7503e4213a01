"""Write the trained parts in the published formats, and run the converter on them."""

from __future__ import annotations

from pathlib import Path

from ..default_model.export import clip_settings, convert_parts, published_settings, write_parts
from ..default_model.train import load_averaged
from .captions import clip_vocabulary
from .data import temporal_scale
from .settings import Recipe

CHECKPOINT = "moving_paintings_64x64.pth"
_ABOUT = {
    "name": "moving paintings",
    "attribution": "Weights made by the mlx-starflow project from its own moving paintings.",
}


def export_files(folder: Path, run: Path, tokenizer, recipe: Recipe) -> int:
    """Write checkpoint, YAML, ``vae`` and ``text_encoder`` into `folder`; returns the step."""
    shape = recipe.flow.shape
    settings = published_settings(shape, recipe.data.size, recipe.flow.noise_std)
    scale = temporal_scale(run / "vae")
    settings |= clip_settings(shape, recipe.frames, recipe.fps, scale)
    parts = load_averaged(run / "flow", recipe.flow, recipe.text, len(tokenizer))
    return write_parts(folder / CHECKPOINT, parts, settings, run / "vae" / "vae", tokenizer)


def convert_bundle(folder: Path, bundle: Path, recipe: Recipe) -> None:
    """Convert the exported files. The autoencoder and the flow's projections at the ends of the
    blocks are stored in half precision."""
    words, guidance = clip_vocabulary(), recipe.guidance
    convert_parts(folder / CHECKPOINT, bundle, _ABOUT, "bfloat16", words, guidance)
    halve(bundle / "vae")
    halve(bundle / "flow", ("proj_in.weight", "proj_out.weight"))


def halve(component: Path, names: tuple[str, ...] = ("",)) -> None:
    """Store a component's tensors in float16, those whose names end with one of ``names``. They
    are read as float32 again."""
    import mlx.core as mx

    from mlx_starflow.bundle.load import read_json, write_component

    weights = mx.load(str(component / "model.safetensors"))
    weights = {
        name: value.astype(mx.float16) if name.endswith(names) else value
        for name, value in weights.items()
    }
    mx.eval(weights)
    (component / "model.safetensors").unlink()
    write_component(component, read_json(component / "config.json"), weights)
