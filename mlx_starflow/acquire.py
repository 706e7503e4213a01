"""From a model's name to a complete bundle on this disk, downloaded and converted if need be."""

from __future__ import annotations

from pathlib import Path

from .download import Tell
from .hub import Sources, resolve, resolve_component


def acquire(
    model: str | Path | None, quantize: int | str | None = None, tell: Tell | None = None
) -> Path:
    """Directory of a model's bundle; see ``hub.resolve`` for the order and the errors."""

    def converter(sources: Sources, output: Path) -> None:
        # Knowledge of other frameworks' files lives outside the package, and is seldom needed.
        from convert.from_hub import convert_sources

        convert_sources(sources, output, tell)

    return resolve(model, converter, quantize, tell)


def acquire_component(bundle: Path, reference: str, kind: str, tell: Tell | None = None) -> Path:
    """Directory of a component of a bundle, which may be a reference to a repository."""

    def converter(source: Path, kind: str, output: Path) -> None:
        from convert.from_hub import convert_component

        convert_component(source, kind, output, tell=tell)

    return resolve_component(bundle, reference, kind, converter, tell)
