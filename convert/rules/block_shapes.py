"""The architecture of a block from the shapes of its tensors."""

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
    """The tensors of one block."""

    prefix: str  # "blocks.3."
    tensors: dict[str, SourceTensor]  # by name without the prefix
    where: str  # the file, for messages

    @classmethod
    def of(cls, prefix: str, tensors: dict[str, SourceTensor], where: str) -> BlockShapes:
        """The block with a prefix, out of all tensors of a checkpoint."""
        inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return cls(prefix, inside, where)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str, dimensions: int = 2) -> tuple[int, ...]:
        """The shape of a required tensor. Errors: WeightsError if it is missing, or does not have
        so many dimensions."""
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
        """The number of layers. Errors: WeightsError if one is missing in between."""
        found = {int(m[1]) for n in self.tensors if (m := re.match(r"attn_blocks\.(\d{1,4})\.", n))}
        missing = sorted(set(range(len(found))) - found)
        if missing:
            raise WeightsError(
                f"{self.where}: layer {missing[0]} of {self.prefix!r} has no tensors, although "
                f"layer {max(found)} has."
            )
        return len(found)

    def block(self, head_dim_of: Callable[[int, int], int], **settings: Any) -> BlockConfig:
        """The BlockConfig from the shapes of the first layer.

        head_dim_of(columns of proj, rows of qkv): returns the head size, if there is no query norm
        that determines it. settings: fields that the shapes do not determine. Errors: WeightsError.
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
                f"{inner} columns, which does not fit a head_dim of {head_dim}. Is head_dim right?"
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
