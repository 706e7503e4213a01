"""Converting published models and components that ``mlx_starflow.hub`` has downloaded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mlx_starflow.bundle.copying import TOKENIZER_FILES, copy_beside
from mlx_starflow.bundle.load import write_json
from mlx_starflow.bundle.safetensors import ShardWriter
from mlx_starflow.config import TextConfig
from mlx_starflow.files.regular import is_regular
from mlx_starflow.hub.resolve import Sources

from .bundle import Event, convert_steps
from .options import ConvertOptions, ConvertProgress
from .read.digest import RunningDigest
from .read.sources import open_checkpoint
from .rules.autoencoders import autoencoder_stores, open_autoencoder
from .rules.text import text_source
from .write.staging import check_space, staged_directory
from .write.storing import Store

CONVERTED = "This copy was converted to MLX by mlx-starflow."
_KEPT = {"F64": "F32", "F8_E4M3": "BF16", "F8_E5M2": "BF16"}  # other dtypes are kept

Tell = Callable[[Event], object]


def convert_sources(sources: Sources, output: Path, tell: Tell | None = None) -> None:
    """Convert a downloaded model, with its VAE and text encoder, to a bundle at ``output``.

    ``tell`` receives ConvertProgress and at the end the ConvertReport. Errors: those of
    ``convert_steps``.
    """
    model = sources.model
    options = ConvertOptions(
        checkpoint=sources.checkpoint,
        output=output,
        settings=_settings(sources) or None,
        vae=str(sources.vae) if sources.vae else None,
        text_encoder=str(sources.text_encoder) if sources.text_encoder else None,
        dtype=model.dtype if sources.quantize is None else None,
        quantize=sources.quantize,
        name=model.name,
        licence=model.licence,
        attribution=f"{model.attribution} {CONVERTED}".strip(),
    )
    for event in convert_steps(options):
        if tell is not None:
            tell(event)


def _settings(sources: Sources) -> dict[str, Any]:
    """The settings of the known model, with those that the weights determine taken from them, since
    a published checkpoint may be replaced by one of another resolution."""
    settings = dict(sources.model.settings)
    if not settings:
        return settings
    with ExitStack() as stack:
        checkpoint = open_checkpoint(sources.checkpoint)
        stack.callback(checkpoint.close)
        shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    # No block of the published model is empty, so the last one with weights is the last block.
    numbers = [int(n.split(".")[1]) for n in shapes if n.startswith("blocks.")]
    settings["blocks"] = 1 + max(numbers, default=settings["blocks"] - 1)
    mask = next((s for n, s in shapes.items() if n.endswith(".attn_mask")), None)
    if "var" in shapes and mask is not None:
        tokens = shapes["var"][0]
        settings["txt_size"] = mask[0] - tokens
        if "pt_seq_len" in settings:  # P of the rotary positions, not the grid
            settings["pt_seq_len"] = math.isqrt(tokens)
            return settings
        factor = 1
        if sources.vae:
            source, autoencoder = open_autoencoder(sources.vae)
            source.close()
            factor = autoencoder.factor
        settings["img_size"] = math.isqrt(tokens) * settings["patch_size"] * factor
    return settings


def convert_component(
    source: Path,
    kind: str,
    output: Path,
    text: TextConfig | None = None,
    tell: Tell | None = None,
) -> None:
    """Convert only a VAE or text encoder, in the precision in which it is stored.

    ``kind``: "vae" or "text_encoder". ``text``: the text settings of the model, which the encoder
    must match. Errors: those of ``convert_steps``; then no files are left behind.
    """
    with ExitStack() as stack:
        files: list[Path] = []
        if kind == "vae":
            checkpoint, autoencoder = open_autoencoder(source)
            stack.callback(checkpoint.close)
            config, stores = autoencoder.to_dict(), autoencoder_stores(checkpoint, autoencoder)
        else:
            checkpoint = open_checkpoint(source)
            stack.callback(checkpoint.close)
            encoder = text_source(source, checkpoint, text)
            config = encoder.config
            stores = [_as_stored(Store(t, n, t.shape, "F32")) for n, t in encoder.tensors.items()]
            files = [source / name for name in TOKENIZER_FILES if is_regular(source / name)]
        plans = [plan for store in stores for plan in store.plans()]
        total = sum(plan.nbytes for plan in plans)
        check_space(output, total)
        digest = RunningDigest(checkpoint.files)
        stack.callback(digest.cancel)
        with staged_directory(output) as work:
            write_json(work / "config.json", config)
            for path in files:
                copy_beside(path, work)
            _write(stores, ShardWriter(work, plans), kind, total, tell)
            digest.finish()
            for file in checkpoint.files:
                file.check_unchanged()


def _write(
    stores: list[Store], writer: ShardWriter, kind: str, total: int, tell: Tell | None
) -> None:
    done = 0
    try:
        for store in stores:
            for count in store.write(writer):
                done += count
                if tell is not None:
                    tell(ConvertProgress(kind, done, total))
    except BaseException:
        writer.abort()
        raise
    writer.close()


def _as_stored(store: Store) -> Store:
    dtype = store.source.dtype
    return dataclasses.replace(store, dtype=_KEPT.get(dtype, dtype))
