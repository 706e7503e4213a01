"""The companions of a checkpoint: VAE, text encoder, licence files."""

from __future__ import annotations

import re
from pathlib import Path

from mlx_starflow.bundle.copying import LICENCE_NAME
from mlx_starflow.errors import ModelNotFoundError
from mlx_starflow.files.regular import is_regular
from mlx_starflow.hub.resolve import download_component

from .options import ConvertOptions

MAX_LICENCE_BYTES = 1 << 20
_APPLE = (
    "Apple Machine Learning Research Model is licensed under the Apple Machine Learning Research "
    "Model License Agreement. This copy was converted to MLX by mlx-starflow."
)


def component_directory(given: str | None, kind: str) -> Path | None:
    """The directory of --vae or --text-encoder, or the .pth of a VAE; a hub repository is
    downloaded. None for None.

    ``kind``: "vae" or "text_encoder". Errors: ModelNotFoundError, HubError.
    """
    if given is None:
        return None
    path = Path(given).expanduser()
    if path.is_dir() or (kind == "vae" and path.is_file()):
        return path
    if re.fullmatch(r"[\w.-]+/[\w.-]+", given) and not path.exists():
        return download_component(given, kind)
    raise ModelNotFoundError(
        f"--{kind.replace('_', '-')} {given} is neither a directory nor a hub repository "
        "(owner/name)."
    )


def licence_files(checkpoint: Path) -> list[Path]:
    """The licence and notice files beside a checkpoint."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    return sorted(
        p
        for p in folder.iterdir()
        if LICENCE_NAME.fullmatch(p.name)
        and is_regular(p)
        and p.stat().st_size <= MAX_LICENCE_BYTES
    )


def licence_of(options: ConvertOptions) -> tuple[str, str]:
    """Licence and attribution for config.json: as in the options, else by the file's name."""
    licence, attribution = options.licence, options.attribution
    files = licence_files(options.checkpoint)
    if not licence and files:
        licence = f"see {files[0].name}"
    if options.checkpoint.name.startswith(("starflow_", "starflow-")):
        licence = licence or "apple-amlr (research only)"
        attribution = attribution or _APPLE
    return licence, attribution
