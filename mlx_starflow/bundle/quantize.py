"""Which tensors are cast or quantized, and to how many bits.

| component | takes the chosen dtype | may be quantized (affine, groups of 64) |
|---|---|---|
| flow | the layers' matrices (qkv, proj, up, gate, down) and proj_txt | the layers' matrices |
| text encoder | everything | the layers' matrices; never a token table |
| VAE | nothing | nothing |

The other tensors of a flow (proj_in, proj_out, SOS, norms, position tables) are small and their
errors reach the result directly, so they stay float32. Recipes: 4 or 8 bits everywhere, or "mixed":
4 bits in the inner layers of the deep block, which hold most of the weights, and 8 bits in its
first and last layer, the shallow blocks, the denoiser and the text encoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..device.typed import layers_of
from ..errors import UsageError

GROUP_SIZE = 64
RECIPES = (4, 8, "mixed")
Recipe = int | str

_FLOW_MATRIX = re.compile(
    r"(?:blocks\.(\d+)|denoiser)\.layers\.(\d+)\.(?:attention\.(?:qkv|proj)|mlp\.(?:up|gate|down))"
)
_TEXT_MATRIX = re.compile(
    r"model\.layers\.\d+\..+_proj|encoder\.block\.\d+\.layer\.\d+"
    r"\.(?:SelfAttention\.[qkvo]|DenseReluDense\.w[io](?:_[01])?)"
)


def component_kind(config: dict[str, Any]) -> str:
    """The kind of a component, "flow", "text" or "vae", from its config.json."""
    kind = config.get("model_type")
    if kind in ("starflow", "tarflow"):
        return "flow"
    return "vae" if kind is None else "text"


def takes_type(kind: str, name: str) -> bool:
    """Whether a tensor (by its name) of a component is cast to the chosen dtype."""
    if kind == "flow":
        module, _, leaf = name.rpartition(".")
        return leaf in ("weight", "scales", "biases") and (
            _FLOW_MATRIX.fullmatch(module) is not None or module.endswith(".proj_txt")
        )
    return kind == "text"


def is_matrix(kind: str, module: str) -> bool:
    """Whether the weight of a module (its path, without ".weight") may be quantized."""
    pattern = {"flow": _FLOW_MATRIX, "text": _TEXT_MATRIX}.get(kind)
    return pattern is not None and pattern.fullmatch(module) is not None


def check_recipe(recipe: Recipe) -> Recipe:
    """The recipe, with "4" and "8" as numbers. Errors: UsageError for an unknown one."""
    recipe = int(recipe) if str(recipe) in ("4", "8") else recipe
    if recipe not in RECIPES:
        raise UsageError(f"quantize is {recipe!r}; expected 4, 8 or 'mixed'.")
    return recipe


def bits_of(recipe: Recipe, module: str, config: dict[str, Any]) -> int:
    """Bits for a matrix (by the path of its module); ``config`` is the component's config.json."""
    if recipe != "mixed":
        return int(recipe)
    match = _FLOW_MATRIX.fullmatch(module)
    if match is None or match[1] is None:
        return 8
    layers = [block["layers"] for block in config["blocks"]]
    deep = max(i for i, n in enumerate(layers) if n)
    inner = int(match[1]) == deep and 0 < int(match[2]) < layers[deep] - 1
    return 4 if inner else 8


def quantization_block(bits: dict[str, int]) -> dict[str, Any]:
    """The "quantization" block of config.json, in mlx-lm's format. ``bits``: by module path."""
    counts = {b: list(bits.values()).count(b) for b in set(bits.values())}
    usual = max(counts, key=counts.__getitem__)
    special = {m: {"group_size": GROUP_SIZE, "bits": b} for m, b in bits.items() if b != usual}
    return {"group_size": GROUP_SIZE, "bits": usual, **special}


def stored_bits(block: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    """A function from module path to its group size and bits, from a "quantization" block."""
    usual = {k: v for k, v in block.items() if not isinstance(v, dict | bool)}
    return lambda module: block[module] if isinstance(block.get(module), dict) else usual


def quantize_module(module: nn.Module, config: dict[str, Any], recipe: Recipe) -> list[str]:
    """Quantize a loaded component in place.

    Returns the paths of matrices that were not quantized, since their width is not a multiple of
    64. Errors: UsageError if the component is already quantized to other bits.
    """
    recipe, kind, left = check_recipe(recipe), component_kind(config), []
    for path, leaf in layers_of(module):
        if "scales" in leaf and leaf.bits != bits_of(recipe, path, config):
            raise UsageError(
                f"The model is stored with {leaf.bits}-bit weights ({path}) and cannot become "
                f"{recipe if recipe == 'mixed' else f'{recipe}-bit'}. Convert the checkpoint again."
            )
    # One matrix at a time, so that each is freed before the next and no evaluation takes long.
    leaves = dict(layers_of(module))
    for path in list(leaves):
        leaf = leaves.pop(path)
        if not is_matrix(kind, path) or not hasattr(leaf, "to_quantized"):
            continue
        if leaf.weight.shape[-1] % GROUP_SIZE:
            left.append(path)
            continue
        packed = leaf.to_quantized(GROUP_SIZE, bits_of(recipe, path, config))
        mx.eval(packed.parameters())
        module.update_modules(tree_unflatten([(path, packed)]))
        del leaf, packed
    return left
