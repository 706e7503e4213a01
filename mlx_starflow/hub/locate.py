"""The embedded models and models given as a directory."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelNotFoundError
from .known import CLIPS, DEFAULT

# The directories of the models inside the package, by name.
EMBEDDED = {name: Path(__file__).parents[1] / "assets" / name for name in (DEFAULT, CLIPS)}


def locate(model: str | Path | None) -> Path:
    """The directory of a bundle. None: the embedded model of pictures; the name of an embedded
    model; or a path.

    Errors: ModelNotFoundError.
    """
    name = DEFAULT if model is None else str(model)
    if name in EMBEDDED:
        if not is_here(name):
            raise ModelNotFoundError(
                f"This copy of mlx-starflow lacks the embedded model {name!r}; choose a model with "
                "--model."
            )
        return EMBEDDED[name]
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return path
    if path.is_dir():
        raise ModelNotFoundError(
            f"{path} is not a converted model: config.json is missing. "
            "Make one with: mlx-starflow convert CHECKPOINT.pth --output DIR"
        )
    raise ModelNotFoundError(f"{model}: no directory of this name, and no known model.")


def is_here(name: str) -> bool:
    """Whether this copy of the package has the embedded model of this name."""
    return (EMBEDDED[name] / "config.json").is_file()


def embedded() -> list[str]:
    """The names of the embedded models that this copy of the package has."""
    return [name for name in EMBEDDED if is_here(name)]
