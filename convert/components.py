"""The companions of a checkpoint: VAE, text encoder, licence files."""

from __future__ import annotations

import re
from pathlib import Path

from mlx_starflow.errors import CheckpointError, ModelNotFoundError
from mlx_starflow.files.regular import inside, is_regular, read_regular
from mlx_starflow.hub.resolve import download_component

from .options import ConvertOptions

MAX_LICENCE_BYTES = 1 << 20
MAX_FILE_BYTES = 128 << 20  # of a tokenizer file
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
        if re.match(r"(LICEN[CS]E|NOTICE|ACKNOWLEDG)", p.name, re.IGNORECASE)
        and is_regular(p)
        and p.stat().st_size <= MAX_LICENCE_BYTES
    )


def copy_beside(path: Path, directory: Path) -> None:
    """Copy a licence or a tokenizer file into a directory.

    A link may lead to a file in its own directory, or to a blob of the hub's cache that the
    directory belongs to. Other links are refused, so that a model cannot choose other files of this
    computer to be copied into a bundle. Errors: CheckpointError.
    """
    if not inside(path, path.parent) and not inside(path, _blobs(path.parent)):
        raise CheckpointError(
            f"{path} is a link that leads outside its directory, so it is not copied. Replace it "
            "by the file itself."
        )
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    (directory / path.name).write_bytes(data)


def _blobs(directory: Path) -> Path:
    """The blobs directory for a snapshot in the hub's cache; for other directories itself."""
    for parent in (directory, *directory.parents):
        if parent.parent.name == "snapshots":
            return parent.parent.parent / "blobs"
    return directory


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
