"""``export``: a folder with functions for apps without Python."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..device.machine import mlx_version
from ..errors import UsageError
from ..exported import FORMAT, FORMAT_VERSION, check_sum, write_manifest
from ..flow import Block
from ..generation.components import Components, precision
from ..version import __version__
from .decoder import decoder_functions, decoder_settings
from .functions import SUFFIX, Function, write_functions
from .layout import layout_functions, learned_denoiser
from .one_function import latent_functions, picture_functions, score_functions
from .plan import Plan, make_plan
from .stepwise import BlockPieces
from .text import copy_tokenizer, text_functions, text_settings
from .vector import write_vector

CARD = "MODEL_CARD.md"
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "ACKNOWLEDG*", CARD)


@dataclass(frozen=True)
class ExportReport:
    """What was written."""

    path: Path
    what: str
    bytes: int  # of all files
    functions: int
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as values that JSON can hold."""
        return {**self.__dict__, "path": str(self.path)}


def export(
    components: Components,
    output: Path,
    what: str | None = None,
    *,
    batch: int = 1,
    aspect_ratio: str | None = None,
    guidance: float | None = None,
    denoise: bool | None = None,
    tile: int | None = None,
) -> ExportReport:
    """Write a model as functions of MLX that C++ and Swift run without Python (``exported.load``
    runs them too).

    what: "picture" (one function from noise and text to pixels), "steps" (pieces, with the loops in
    the host), "score" (likelihood, encoding) or "text" (the text encoder alone); None: "picture"
    for a small flow, else "steps". batch: pictures at a time. aspect_ratio, guidance, denoise: as
    for ``Pipeline.generate``; they cannot be changed in an export. tile: side of the decoder's
    tiles in latent cells, with steps; None: whole pictures unless they are large.

    The folder appears when it is complete. Errors: UsageError for what cannot be exported and for a
    folder that exists, those of loading the model.
    """
    plan = make_plan(components, what, batch, aspect_ratio, guidance, denoise, tile)
    with _staged(output) as directory:
        data = _head(components, plan)
        data["functions"] = _write_all(components, plan, directory, data)
        data["test"] = write_vector(components, plan, directory)
        copy_tokenizer(components, directory)
        _copy_licences(components, directory)
        data["files"] = _sums(directory)
        fingerprint = write_manifest(directory, data)
        size = sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())
    return ExportReport(output, plan.what, size, len(data["functions"]), fingerprint)


def _head(components: Components, plan: Plan) -> dict[str, Any]:
    config, flow, settings = components.config, plan.flow, plan.settings
    order = ["channel", "row", "column"] if flow.model_type == "tarflow" else None
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "made_by": f"mlx-starflow {__version__}",
        "mlx_version": mlx_version(),
        "device": mx.default_device().type.name,
        "what": plan.what,
        "model": {
            "name": config.name,
            "type": flow.model_type,
            "weights": components.fingerprint,
            "licence": config.licence,
            "attribution": config.attribution,
        },
        "width": settings.width,
        "height": settings.height,
        "aspect_ratio": settings.aspect_ratio,
        "noise": {
            "shape": list(plan.shape),
            "distribution": "standard normal, one seed per picture",
            "patch_size": flow.patch_size,
            "grid": [plan.grid.height, plan.grid.width],
            "order_of_tokens": ["row", "column"],
            "order_in_a_token": order or ["row", "column", "channel"],
        },
        "guidance": {
            "weight": plan.options.guidance,
            "blocks": plan.options.guidance_blocks,
            "null_caption": plan.has_null,
        },
        "denoising": {
            "method": settings.denoiser if settings.denoise else None,
            "noise_std": plan.noise_std,
        },
        "classes": flow.num_classes,
        "text": text_settings(components, settings.aspect_ratio),
        "sampling": {"sampler": "sequential", "blocks": []},
        "decoder": {"kind": "none"},
    }


def _write_all(
    components: Components, plan: Plan, directory: Path, data: dict[str, Any]
) -> dict[str, Any]:
    """Write the files with functions, one after another. Returns their entries in export.json."""
    entries: dict[str, Any] = {}

    def write(stem: str, functions: Sequence[Function]) -> None:
        if functions:
            entries.update(write_functions(directory / f"{stem}{SUFFIX}", functions))
            mx.clear_cache()

    write("text", text_functions(components))
    if plan.what == "text":
        return entries
    flow, vae = components.flow, components.vae
    data["model"]["precision"] = precision(flow)
    if plan.what == "picture":
        write("picture", picture_functions(plan, flow, vae))
    if plan.what == "score":
        write("score", score_functions(plan, flow))
        write("latent", latent_functions(plan, vae))
    if plan.what == "steps":
        write("layout", layout_functions(plan, flow))
        by_score = plan.settings.denoiser == "score"
        for index in reversed(range(len(flow.blocks))):
            block = flow.blocks[index]
            if isinstance(block, Block):
                pieces = BlockPieces(plan, flow, index, block)
                write(f"block{index}", pieces.functions(by_score))
                data["sampling"]["blocks"].append(pieces.settings())
        write("denoiser", learned_denoiser(plan, flow))
        write("decoder", decoder_functions(plan, vae))
        data["decoder"] = decoder_settings(plan, vae)
    return entries


def _copy_licences(components: Components, directory: Path) -> None:
    """Copy the model's licence files; a file LICENCE.txt names the licence where there are none."""
    config = components.config
    copied = [
        shutil.copyfile(path, directory / path.name)
        for pattern in LICENCES
        for path in sorted(components.directory.glob(pattern))
        if path.is_file()
    ]
    if not any(path.name != CARD for path in copied):
        lines = [f"Licence of the model {config.name}: {config.licence or 'not stated'}."]
        lines += [config.attribution] if config.attribution else []
        (directory / "LICENCE.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sums(directory: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": check_sum(path),
        }
        for path in files
    }


@contextmanager
def _staged(output: Path) -> Iterator[Path]:
    """A new folder beside the output that takes its name at the end. Errors: UsageError."""
    target = Path(os.path.abspath(output))
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{output} exists. Choose another folder for the export.")
    staging = target.parent / f".{target.name}-{secrets.token_hex(4)}.partial"
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{output} cannot be written ({error.strerror}).") from None
    try:
        yield staging
        if target.exists():
            target.rmdir()
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
