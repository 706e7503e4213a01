"""TarFlow checkpoints: from weights and file name to a configuration."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mlx_starflow.config import BlockConfig, FlowConfig, SampleDefaults
from mlx_starflow.errors import ConfigError, WeightsError

from ..read.tensor_file import SourceTensor
from .architecture import Architecture, contradiction
from .block_shapes import BlockShapes

HEAD_DIM = 64
_NAME = re.compile(r"(.+)_model_(\d+)_(\d+)_(\d+)_(\d+)_(\d*\.?\d+)")


@dataclass(frozen=True)
class NamedShape:
    """The fields of a file name {dataset}_model_{patch}_{channels}_{blocks}_{layers}_{noise}."""

    patch_size: int
    channels: int
    blocks: int
    layers: int
    noise_std: float


def named_shape(file_name: str) -> NamedShape | None:
    """The fields of a TarFlow's file name; None if it does not have this form."""
    stem = re.sub(r"\.(pth|pt|ckpt|bin|safetensors)$", "", file_name)
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    patch, channels, blocks, layers = (int(match[i]) for i in range(2, 6))
    return NamedShape(patch, channels, blocks, layers, float(match[6]))


def is_tarflow(tensors: dict[str, SourceTensor]) -> bool:
    """Whether the tensors are those of a TarFlow: learned positions, no SOS, no text."""
    return "blocks.0.pos_embed" in tensors and not any(
        n.endswith((".sos_embed", ".proj_txt.weight", ".final_norm.weight")) for n in tensors
    )


def tarflow_architecture(
    tensors: dict[str, SourceTensor], file_name: str, noise_std: float | None, where: str
) -> Architecture:
    """The architecture of a TarFlow checkpoint.

    noise_std: must be given if the file name does not have it. where: the file, for messages.
    Errors: ConfigError if file name and weights contradict each other, WeightsError if tensors are
    missing or do not fit.
    """
    named = named_shape(file_name)
    numbers = {int(m[1]) for n in tensors if (m := re.match(r"blocks\.(\d{1,4})\.", n))}
    missing = sorted(set(range(max(numbers) + 1)) - numbers)
    if missing:
        raise WeightsError(f"{where}: block {missing[0]} has no tensors.")
    shapes = [BlockShapes.of(f"blocks.{i}.", tensors, where) for i in range(len(numbers))]
    d = shapes[0].shape("proj_in.weight")[1]
    tokens = shapes[0].shape("pos_embed")[0]
    grid = math.isqrt(tokens)
    if grid * grid != tokens:
        raise WeightsError(
            f"{where}: blocks.0.pos_embed has {tokens} rows; expected a square number."
        )
    patch, channels = _patch(d, named, where)
    classes = shapes[0].shape("class_embed", 3)[0] if "class_embed" in shapes[0] else 0
    outputs = shapes[0].shape("proj_out.weight")[0]
    blocks = tuple(_block(shape, i, bool(classes)) for i, shape in enumerate(shapes))
    if named is not None:
        _compare(named, blocks, where)
    flow = FlowConfig(
        model_type="tarflow",
        in_channels=channels,
        patch_size=patch,
        grid_size=grid,
        blocks=blocks,
        noise_std=_noise(named, noise_std, where),
        num_classes=classes,
        scale="unit" if outputs == d else "exp",
    )
    return Architecture(
        flow,
        None,
        grid * patch,
        SampleDefaults(guidance=1.0 if classes else 0.0),
        frozenset(n for n in tensors if n.endswith(".attn_mask")),
    )


def _block(shapes: BlockShapes, i: int, conditioned: bool) -> BlockConfig:
    return shapes.block(
        lambda inner, rows: HEAD_DIM,
        position="table",
        conditioned=conditioned,
        flip=i % 2 == 1,
    )


def _patch(d: int, named: NamedShape | None, where: str) -> tuple[int, int]:
    """Patch size and image channels, for tokens of d numbers."""
    if named is not None:
        channels, rest = divmod(d, named.patch_size**2)
        if rest or channels == 0:
            raise contradiction(
                where, "the patch in the file's name", named.patch_size, d, "proj_in.weight"
            )
        return named.patch_size, channels
    for channels in (3, 1):
        side = math.isqrt(d // channels)
        if side * side * channels == d:
            return side, channels
    raise ConfigError(
        f"{where}: tokens of {d} numbers are not square patches of 3 or 1 channels. Rename the "
        "file to its published name, "
        "{dataset}_model_{patch}_{channels}_{blocks}_{layers}_{noise}.pth."
    )


def _compare(named: NamedShape, blocks: tuple[BlockConfig, ...], where: str) -> None:
    for key, said, found, tensor in (
        ("blocks", named.blocks, len(blocks), "blocks.*"),
        *(
            (key, said, found, f"blocks.{i}.*")
            for i, block in enumerate(blocks)
            for key, said, found in (
                ("channels", named.channels, block.channels),
                ("layers", named.layers, block.layers),
            )
        ),
    ):
        if said != found:
            raise contradiction(where, f"{key} in the file's name", said, found, tensor)


def _noise(named: NamedShape | None, given: float | None, where: str) -> float:
    if named is None:
        if given is not None:
            return given
        raise ConfigError(
            f"{where}: the noise level of this TarFlow is neither in its name nor in its weights. "
            "Pass --noise-std, or rename the file to its published name "
            "({dataset}_model_{patch}_{channels}_{blocks}_{layers}_{noise}.pth)."
        )
    if given is not None and named.noise_std != given:
        raise ConfigError(
            f"{where}: --noise-std is {given}, but the file's name says {named.noise_std}. "
            "Leave the flag out, or rename the file."
        )
    return named.noise_std if given is None else given
