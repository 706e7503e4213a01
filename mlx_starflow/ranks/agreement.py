"""Checks at the start that all ranks do the same work with the same programs and weights."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from ..device.machine import mlx_version
from ..errors import StarflowError
from ..version import __version__
from .group import Group


def agree(group: Group, facts: Mapping[str, str]) -> None:
    """Compare what every rank knows of the job, by a name for messages: the version of the program,
    and ``facts`` (model, adapters, settings). Errors: StarflowError on all ranks, naming the first
    rank and fact that differ from rank 0's."""
    own = {"version of mlx-starflow": __version__, "version of MLX": mlx_version(), **facts}
    found = group.gather(own)
    problem = group.share(_difference(group, found) if group.rank == 0 else None)
    if problem is not None:
        raise StarflowError(problem)


def _difference(group: Group, found: list[dict[str, str]]) -> str | None:
    """A sentence about the first rank that differs from rank 0, or None."""
    first = found[0]
    for rank, other in enumerate(found):
        for name in dict.fromkeys([*first, *other]):
            here, there = first.get(name, "nothing"), other.get(name, "nothing")
            if here != there:
                return (
                    f"{group.name(rank)} has another {name}: {there} instead of {here} on rank 0 "
                    f"({platform.node()})."
                )
    return None
