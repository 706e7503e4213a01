"""What the shapes of a block's tensors say about its architecture."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlx_starflow.config import BlockConfig
from mlx_starflow.errors import WeightsError

from ..read.tensor_file import SourceTensor

_FIRST = "attn_blocks.0."


@dataclass(frozen=True)
class BlockShapes:
    """One block's tensors, by their names inside the block."""

    prefix: str  # "blocks.3."
    tensors: dict[str, SourceTensor]
    where: str  # the file, for messages

    @classmethod
    def of(cls, prefix: str, tensors: dict[str, SourceTensor], where: str) -> BlockShapes:
        inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return cls(prefix, inside, where)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str, dimensions: int = 2) -> tuple[int, ...]:
        """Shape of a tensor that must be there. Errors: WeightsError naming it."""
        if name not in self.tensors:
            raise WeightsError(f"{self.where}: the tensor {self.prefix + name!r} is missing.")
        shape = self.tensors[name].shape
        if len(shape) != dimensions or 0 in shape:
            raise WeightsError(
                f"{self.where}: {self.prefix + name!r} has shape {shape}; expected "
                f"{dimensions} dimensions, none of them 0."
            )
        return shape

    @property
    def layers(self) -> int:
        """Number of layers; their numbers must be 0, 1, 2, ... without a gap."""
        found = {int(m[1]) for n in self.tensors if (m := re.match(r"attn_blocks\.(\d{1,4})\.", n))}
        missing = sorted(set(range(len(found))) - found)
        if missing:
            raise WeightsError(
                f"{self.where}: layer {missing[0]} of {self.prefix!r} has no tensors, although "
                f"layer {max(found)} has."
            )
        return len(found)

    def block(self, head_dim_of: Callable[[int, int], int], **settings: Any) -> BlockConfig:
        """The BlockConfig of the first layer's shapes; ``settings`` are what shapes do not tell.

        ``head_dim_of(inner, qkv rows)`` gives the head size where no query norm tells it.
        """
        channels = self.shape("proj_in.weight")[0]
        rows = self.shape(_FIRST + "attention.qkv.weight")[0]
        inner = self.shape(_FIRST + "attention.proj.weight")[1]
        qk_norm = _FIRST + "attention.query_norm.weight" in self
        if qk_norm:
            head_dim = self.shape(_FIRST + "attention.query_norm.weight", 1)[0]
        else:
            head_dim = head_dim_of(inner, rows)
        both = rows - inner
        if inner % head_dim or both <= 0 or both % (2 * head_dim):
            raise WeightsError(
                f"{self.where}: {self.prefix}{_FIRST}attention.qkv.weight has {rows} rows and proj "
                f"{inner} columns, which heads of {head_dim} numbers cannot make. "
                "Is head_dim that of this checkpoint?"
            )
        gated = _FIRST + "mlp.gate_proj.weight" in self
        hidden = self.shape(_FIRST + ("mlp.gate_proj.weight" if gated else "mlp.main.0.weight"))[0]
        return BlockConfig(
            layers=self.layers,
            channels=channels,
            heads=inner // head_dim,
            kv_heads=both // (2 * head_dim),
            head_dim=head_dim,
            mlp_channels=hidden,
            norm="layer_norm" if _FIRST + "attention.norm.bias" in self else "rms_norm",
            gated_mlp=gated,
            bias=_FIRST + "attention.qkv.bias" in self,
            qk_norm=qk_norm,
            post_norm=_FIRST + "attention.post_norm.weight" in self,
            final_norm="final_norm.weight" in self,
            project_text="proj_txt.weight" in self,
            **settings,
        )
