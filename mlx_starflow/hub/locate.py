"""The embedded model and models given as a directory."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelNotFoundError

EMBEDDED = Path(__file__).parents[1] / "assets" / "default"


def locate(model: str | Path | None) -> Path:
    """The directory of a bundle. None or "default": the embedded model; else a path.

    Errors: ModelNotFoundError.
    """
    if model is None or str(model) == "default":
        if not (EMBEDDED / "config.json").is_file():
            raise ModelNotFoundError(
                "This copy of mlx-starflow has no embedded model; choose a model with --model."
            )
        return EMBEDDED
    path = Path(model).expanduser()
    if (path / "config.json").is_file():
        return path
    if path.is_dir():
        raise ModelNotFoundError(
            f"{path} is not a converted model: config.json is missing. "
            "Make one with: mlx-starflow convert CHECKPOINT.pth --output DIR"
        )
    raise ModelNotFoundError(f"{model}: no directory of this name, and no known model.")
