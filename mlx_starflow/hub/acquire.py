"""From a model's name to its bundle on disk, downloaded and converted if necessary."""

from __future__ import annotations

import difflib
from pathlib import Path

from ..bundle.load import read_bundle_config
from ..errors import HubError, ModelNotFoundError, StarflowError, UsageError
from ..files.fields import shown
from .converter import converter_module
from .download import Tell
from .known import KNOWN, known_model
from .locate import EMBEDDED
from .resolve import Sources, resolve, resolve_component


def acquire(
    model: str | Path | None, quantize: int | str | None = None, tell: Tell | None = None
) -> Path:
    """The directory of a model's bundle. ``hub.resolve.resolve`` says in which order it is looked
    for, and which errors it raises; for an unknown name the message suggests a similar one."""

    def converter(sources: Sources, output: Path) -> None:
        converter_module("from_hub").convert_sources(sources, output, tell)

    try:
        return resolve(model, converter, quantize, tell)
    except (HubError, ModelNotFoundError) as error:
        near = _nearest(str(model))
        if near is None:
            raise
        raise type(error)(f"{error} Did you mean {near!r}?") from error


def check_stored_model(name: str | None, where: str) -> None:
    """Raise a UsageError if a model that is named in a file is not complete on this disk.

    Settings in a picture of somebody else must not start a download. They may select only the
    embedded models, and models that are on this disk with all components. ``where``: the file, for
    messages.
    """
    if name is None or name in EMBEDDED:
        return
    try:
        bundle = resolve(name)
        for kind, reference in read_bundle_config(bundle).components.items():
            resolve_component(bundle, reference, kind)
    except (StarflowError, OSError):
        raise UsageError(
            f"{where} was made with the model {shown(name, 200)}, which is not (completely) on "
            "this disk. If you trust it, download it (mlx-starflow models download NAME), or "
            "choose the model with --model."
        ) from None


def acquire_component(bundle: Path, reference: str, kind: str, tell: Tell | None = None) -> Path:
    """The directory of a component of a bundle; ``reference`` may name a hub repository, which is
    then downloaded and converted. Errors: see ``hub.resolve.resolve_component``."""

    def converter(source: Path, kind: str, output: Path) -> None:
        text = read_bundle_config(bundle).text
        converter_module("from_hub").convert_component(source, kind, output, text, tell)

    return resolve_component(bundle, reference, kind, converter, tell)


def _nearest(name: str) -> str | None:
    """The known model name most similar to an unknown one, or None."""
    if known_model(name) is not None:
        return None
    known = [n for model in KNOWN for n in (model.name, *model.aliases)]
    return next(iter(difflib.get_close_matches(name.casefold(), known, 1, 0.75)), None)
