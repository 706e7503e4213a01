"""What stands beside a checkpoint: the VAE, the text encoder, the licence."""

from __future__ import annotations

import re
from pathlib import Path

from mlx_starflow.errors import ModelNotFoundError
from mlx_starflow.hub.resolve import download_component

from .options import ConvertOptions

MAX_LICENCE_BYTES = 1 << 20
_APPLE = (
    "Apple Machine Learning Research Model is licensed under the Apple Machine Learning Research "
    "Model License Agreement. This copy was converted to MLX by mlx-starflow."
)


def component_directory(given: str | None, kind: str) -> Path | None:
    """Directory of --vae or --text-encoder; a repository id is downloaded.

    Errors: ModelNotFoundError, HubError.
    """
    if given is None:
        return None
    path = Path(given).expanduser()
    if path.is_dir():
        return path
    if re.fullmatch(r"[\w.-]+/[\w.-]+", given) and not path.exists():
        return download_component(given, kind)
    raise ModelNotFoundError(
        f"--{kind.replace('_', '-')} {given} is neither a directory nor a hub repository "
        "(owner/name)."
    )


def licence_files(checkpoint: Path) -> list[Path]:
    """Licence and notice files beside the checkpoint."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    return sorted(
        p
        for p in folder.iterdir()
        if re.match(r"(LICEN[CS]E|NOTICE|ACKNOWLEDG)", p.name, re.IGNORECASE)
        and p.is_file()
        and p.stat().st_size <= MAX_LICENCE_BYTES
    )


def licence_of(options: ConvertOptions) -> tuple[str, str]:
    """Licence and attribution for config.json: as given, else known by the file's name."""
    licence, attribution = options.licence, options.attribution
    files = licence_files(options.checkpoint)
    if not licence and files:
        licence = f"see {files[0].name}"
    if options.checkpoint.name.startswith("starflow_"):
        licence = licence or "apple-amlr (research only)"
        attribution = attribution or _APPLE
    return licence, attribution
