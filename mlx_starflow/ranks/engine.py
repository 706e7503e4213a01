"""MLX's own group of the same ranks, whose collective operations carry the numbers."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from ..errors import StarflowError
from .group import Group

LOST = ("[ring]", "[jaccl]")  # how the backends' errors about a lost peer begin


def mlx_group(group: Group) -> Any:
    """The group of ``mx.distributed`` with the same ranks. All ranks call this together. Errors:
    StarflowError if MLX cannot connect them."""
    group.meet()  # MLX waits without limit for ranks that are not there
    try:
        found = mx.distributed.init(strict=True)
    except (RuntimeError, ValueError) as error:
        raise StarflowError(f"MLX cannot connect the ranks: {error}") from None
    if (found.rank(), found.size()) != (group.rank, group.size):
        raise StarflowError(
            f"MLX counts this process as rank {found.rank()} of {found.size()}, mlx.launch as "
            f"{group.rank} of {group.size}."
        )
    return found


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error of MLX says that another rank is gone."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)
