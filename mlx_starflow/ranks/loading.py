"""Loading a rank's share of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..flow.split import TENSOR, Split
from ..pipeline import Pipeline, load


def sharded_load(model: str | Path | None, group: Any, **options: Any) -> Pipeline:
    """A pipeline with this rank's share of a model, in a group of ``mx.distributed``: of the flow
    and of a T5 encoder only the share is read from disk; the rest, and other encoders, is whole.

    ``options``: those of ``load``. All ranks call this and everything else together, and get the
    same results. Errors: those of ``load``, UsageError naming what does not divide.
    """
    return load(model, split=Split(TENSOR, group), **options)
