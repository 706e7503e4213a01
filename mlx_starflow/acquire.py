"""From a model's name to a complete bundle on this disk, downloaded and converted if need be."""

from __future__ import annotations

import difflib
from pathlib import Path

from .checkpoint import read_bundle_config
from .download import Tell
from .errors import HubError, ModelNotFoundError
from .hub import Sources, resolve, resolve_component
from .models import KNOWN, known_model


def acquire(
    model: str | Path | None, quantize: int | str | None = None, tell: Tell | None = None
) -> Path:
    """Directory of a model's bundle; see ``hub.resolve`` for the order and the errors."""

    def converter(sources: Sources, output: Path) -> None:
        # Knowledge of other frameworks' files lives outside the package, and is seldom needed.
        from convert.from_hub import convert_sources

        convert_sources(sources, output, tell)

    try:
        return resolve(model, converter, quantize, tell)
    except (HubError, ModelNotFoundError) as error:
        near = _nearest(str(model))
        if near is None:
            raise
        raise type(error)(f"{error} Did you mean {near!r}?") from error


def acquire_component(bundle: Path, reference: str, kind: str, tell: Tell | None = None) -> Path:
    """Directory of a component of a bundle, which may be a reference to a repository."""

    def converter(source: Path, kind: str, output: Path) -> None:
        from convert.from_hub import convert_component

        convert_component(source, kind, output, read_bundle_config(bundle).text, tell)

    return resolve_component(bundle, reference, kind, converter, tell)


def _nearest(name: str) -> str | None:
    """The known name that was probably meant by one that is unknown."""
    if known_model(name) is not None:
        return None
    known = [n for model in KNOWN for n in (model.name, *model.aliases)]
    return next(iter(difflib.get_close_matches(name.casefold(), known, 1, 0.75)), None)
