"""From a model's name to a complete bundle on this disk, downloaded and converted if need be."""

from __future__ import annotations

import difflib
from pathlib import Path

from ..bundle.load import read_bundle_config
from ..errors import HubError, ModelNotFoundError
from .converter import converter_module
from .download import Tell
from .known import KNOWN, known_model
from .resolve import Sources, resolve, resolve_component


def acquire(
    model: str | Path | None, quantize: int | str | None = None, tell: Tell | None = None
) -> Path:
    """Directory of a model's bundle; see ``hub.resolve`` for the order and the errors."""

    def converter(sources: Sources, output: Path) -> None:
        converter_module("from_hub").convert_sources(sources, output, tell)

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
        text = read_bundle_config(bundle).text
        converter_module("from_hub").convert_component(source, kind, output, text, tell)

    return resolve_component(bundle, reference, kind, converter, tell)


def _nearest(name: str) -> str | None:
    """The known name that was probably meant by one that is unknown."""
    if known_model(name) is not None:
        return None
    known = [n for model in KNOWN for n in (model.name, *model.aliases)]
    return next(iter(difflib.get_close_matches(name.casefold(), known, 1, 0.75)), None)
