"""Write the trained parts in the published formats, and run the converter on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .flow import FlowShape
from .painter import vocabulary
from .settings import Recipe
from .text import save_encoder
from .train import load_averaged

CHECKPOINT = "paintings_128x128.pth"
# Kinds of words in the painter's vocabulary → in a bundle's.
_SPOKEN = {
    "subjects": "subject", "places": "place", "colours": "colour", "sizes": "size",
    "counts": "count", "times": "time", "weathers": "weather", "motions": "motion",
    "words": "words",
}  # fmt: skip


def published_settings(shape: FlowShape, image_size: int, noise_std: float) -> dict:
    """The settings in the form of the YAML files of published STARFlow checkpoints."""
    return {
        "img_size": image_size,
        "txt_size": shape.text_size,
        "channel_size": shape.channel_size,
        "patch_size": shape.patch_size,
        "channels": shape.channels,
        "head_dim": shape.head_dim,
        "blocks": len(shape.layers_per_block),
        "layers_per_block": " ".join(map(str, shape.layers_per_block)),
        "noise_std": noise_std,
        "rope": int(shape.rope),
        "sos": int(shape.sos),
        "seq_order": "R2L" if shape.right_to_left else "L2R",
        "use_softplus": int(shape.use_softplus),
        "cond_top_only": int(shape.cond_top_only),
        "use_final_norm": int(shape.use_final_norm),
        "soft_clip": shape.soft_clip,
        "vae": "vae",
        "text": "gemma",
    }


def clip_settings(shape: FlowShape, frames: int, fps: int, scale: float) -> dict:
    """The further settings of a model of clips; ``frames``: of the training clips, in pictures."""
    return {
        "vid_size": f"{frames}:{fps}",
        "fps_cond": 1,
        "pt_seq_len": shape.grid,
        "temporal_causal": 1,
        "shallow_block_local": int(shape.local),
        "vae": f"vae:{scale}",
    }


def write_checkpoint(path: Path, state: dict, settings: dict) -> None:
    """Write the ``.pth`` file and a YAML file with the same name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: p.detach().float().contiguous() for name, p in state.items()}, path)
    lines = "".join(f"- {key}: {value}\n" for key, value in settings.items())
    path.with_suffix(".yaml").write_text("arguments:\n" + lines)


def export_files(folder: Path, flow_folder: Path, vae: Path, tokenizer, recipe: Recipe) -> int:
    """Write checkpoint, YAML, ``vae`` and ``text_encoder`` into `folder`; returns the step."""
    settings = published_settings(recipe.flow.shape, recipe.data.size, recipe.flow.noise_std)
    parts = load_averaged(flow_folder, recipe.flow, recipe.text, len(tokenizer))
    return write_parts(folder / CHECKPOINT, parts, settings, vae, tokenizer)


def write_parts(checkpoint: Path, parts: tuple, settings: dict, vae: Path, tokenizer) -> int:
    """Write the flow, and beside it ``vae`` and ``text_encoder``; returns the training step.

    ``parts``: flow, encoder and step, as ``load_averaged`` returns them.
    """
    flow, encoder, step = parts
    folder = checkpoint.parent
    write_checkpoint(checkpoint, flow.state_dict(), settings)
    shutil.rmtree(folder / "vae", ignore_errors=True)
    shutil.copytree(vae, folder / "vae")
    save_encoder(encoder, tokenizer, folder / "text_encoder")
    return step


def convert_bundle(folder: Path, bundle: Path, recipe: Recipe, dtype: str = "bfloat16") -> None:
    """Run the converter on the exported files; add the vocabulary and the default guidance."""
    about = {
        "name": "paintings",
        "attribution": "Weights made by the mlx-starflow project from its own paintings.",
    }
    convert_parts(folder / CHECKPOINT, bundle, about, dtype, vocabulary(), recipe.guidance)


def convert_parts(
    checkpoint: Path,
    bundle: Path,
    about: dict[str, str],
    dtype: str,
    words: dict[str, list[str]],
    guidance: float,
) -> None:
    """Run the converter on the files of ``write_parts``.

    ``about``: name and attribution of the model. ``words``: the model's vocabulary, by kind.
    ``guidance``: the bundle's default.
    """
    from convert.bundle import convert_steps
    from convert.options import ConvertOptions

    options = ConvertOptions(
        checkpoint=checkpoint,
        output=bundle,
        config=checkpoint.with_suffix(".yaml"),
        vae=str(checkpoint.parent / "vae"),
        text_encoder=str(checkpoint.parent / "text_encoder"),
        dtype=dtype,
        licence="MIT",
        **about,
        overwrite=True,
        verify=True,
    )
    for _ in convert_steps(options):
        pass
    table = {_SPOKEN[key]: words[key] for key in _SPOKEN if key in words}
    (bundle / "vocabulary.json").write_text(json.dumps(table, indent=1) + "\n")
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["defaults"] = {**config["defaults"], "guidance": guidance}
    path.write_text(json.dumps(config, indent=2) + "\n")


def add_step_weights(bundle: Path, pictures: np.ndarray) -> None:
    """Measure the step weights of ``compress`` with pictures (n, H, W, 3) and write them into the
    bundle's config.json."""
    import mlx_starflow as sf

    with sf.load(bundle) as pipe:
        images = [Image.fromarray(picture) for picture in pictures]
        weights = sf.codec.measured_step_weights(pipe, images)
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["codec"] = {"step_weights": list(weights)}
    path.write_text(json.dumps(config, indent=2) + "\n")
