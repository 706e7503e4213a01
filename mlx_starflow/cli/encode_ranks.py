"""``mlx-starflow encode --split tensor``: every rank has a share of the model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from ..pipeline import Pipeline
from ..ranks import Group, agree


@contextlib.contextmanager
def encoding_together(
    group: Group | None, pipe: Pipeline, digest: str, about: dict[str, Any]
) -> Iterator[Callable[[], None]]:
    """The ranks agree on what they encode and watch each other inside the ``with`` block, whose
    value is to be called while the work goes on. ``digest``: of the picture or clip. ``about``: the
    settings. None: a process by itself. Errors: StarflowError naming a rank with another model,
    picture or settings."""
    if group is None:
        yield lambda: None
        return
    parts = [pipe.fingerprint_of(name) for name in ("flow", "vae", "text_encoder")]
    agree(
        group,
        {
            "model": f"{pipe.config.name} ({' '.join(p for p in parts if p)})",
            "settings": json.dumps(about, sort_keys=True),
            "picture": digest[:16],
        },
    )
    with group.watched():
        yield group.step
