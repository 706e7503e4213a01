"""Bytes that making a picture takes, told from headers and configurations before loading.

Weights are counted exactly, in the precision they will have. The rest (keys and values, the
activations of denoising and decoding) is an estimate meant to be somewhat too high.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..bundle.dtypes import FLOAT_CODES
from ..bundle.load import read_json, weight_files
from ..bundle.quantize import GROUP_SIZE, Recipe, bits_of, component_kind, is_matrix, takes_type
from ..bundle.safetensors import ITEM_BYTES, TensorInfo, read_header
from ..bundle.types import default_type
from ..config import BlockConfig, FlowConfig
from ..device.activations import on_gpu
from ..device.pieces import LARGEST
from ..exact.denoise import CHECKPOINT_BYTES
from ..files.fields import Fields
from ..flow import layer_operations
from ..flow.block import CHUNK, LONG
from ..flow.grid import Grid
from ..flow.layers import MANY
from ..flow.order import order_of
from .components import Components
from .settings import Settings

_TABLE = "model.embed_tokens."
# Bytes of a kept number by the option kv_bits: a scale and a bias of 16 bits for 64 numbers.
KEPT_IN = {16: 2.0, 8: 1 + 4 / 64, 4: 0.5 + 4 / 64}
_MARGIN = 1.5  # activations that were measured took up to 1.4 times the plain count


@dataclass(frozen=True)
class Need:
    """Bytes, for one request in one precision."""

    text_encoder: int  # weights
    flow: int
    vae: int
    encoding: int  # beside the weights, while prompts are encoded
    sampling: int  # keys, values and activations
    denoising: int
    decoding: int
    loading: int  # weights of the flow before they are quantized in memory; 0 if they are stored so

    def peak(self, low_ram: bool) -> int:
        """Most bytes at once. With ``low_ram`` one component is in memory at a time."""
        work = max(self.sampling, self.denoising)
        text = self.text_encoder + self.encoding
        flow = max(self.flow + work, self.loading)
        decode = self.vae + self.decoding
        if low_ram:
            return max(text, flow, decode)
        weights = self.text_encoder + self.flow + self.vae
        others = self.text_encoder + self.vae
        return max(weights + max(self.encoding, work, self.decoding), others + self.loading)


def memory_need(
    components: Components, settings: Settings, quantize: Recipe | None = None, stored: bool = False
) -> Need:
    """Bytes that a request needs. ``quantize``: in this precision instead of the components' own;
    ``stored``: as if the bundle were stored in it, so that nothing is quantized in memory."""
    flow = components.flow_config
    recipe = quantize if quantize is not None else components.quantize
    path = components.path("flow")
    resident = component_bytes(path, components.dtype, recipe)
    whole = component_bytes(path, components.dtype, None)
    text, encoding = _text_need(components, quantize if stored else None)
    batch = len(settings.prompts)
    height, width = settings.height // components.factor, settings.width // components.factor
    frames = settings.latent_frames(components.config)
    grid = Grid(height // flow.patch_size, width // flow.patch_size, frames)
    window = settings.sample.window
    kept = kept_bytes(path, components.dtype, recipe)
    item = KEPT_IN.get(settings.sample.kv_bits or 0, float(kept))
    learned = flow.denoiser is not None and settings.denoiser != "score"
    return Need(
        text_encoder=text,
        flow=resident,
        vae=component_bytes(components.path("vae")) if components.has("vae") else 0,
        encoding=encoding,
        sampling=sampling_bytes(flow, grid, batch, settings.sample.guidance > 0, item, window),
        denoising=denoising_bytes(flow, grid, batch, learned, window) if settings.denoise else 0,
        decoding=components.decoding_bytes(height, width),
        loading=0 if stored or recipe is None or whole == resident else whole,
    )


def component_bytes(
    directory: Path, dtype: str | None = None, quantize: Recipe | None = None
) -> int:
    """Bytes that ``load_component`` with the same arguments keeps in memory."""
    config = read_json(Path(directory) / "config.json")
    stored = config.pop("quantization", None) is not None
    kind, tensors = component_kind(config), list(_tensors(Path(directory)))
    target = _target(kind, tensors, dtype, stored or quantize is not None)
    total = 0
    for tensor in tensors:
        item = ITEM_BYTES[tensor.dtype]
        module, _, leaf = tensor.name.rpartition(".")
        if tensor.dtype not in FLOAT_CODES:
            pass  # quantized weights stay as they are
        elif not takes_type(kind, tensor.name):
            item = 4 if kind == "vae" else item
        elif target is not None:
            item = target
        elif leaf in ("scales", "biases"):
            item = 2  # a GPU's default, whatever they are stored in
        bits: float = 8 * item
        whole_groups = tensor.shape and tensor.shape[-1] % GROUP_SIZE == 0
        if (
            quantize is not None
            and leaf == "weight"
            and tensor.dtype in FLOAT_CODES
            and is_matrix(kind, module)
            and whole_groups
        ):
            # A scale and a bias for every group.
            scale = 2 if target is None else item
            bits = bits_of(quantize, module, config) + 2 * 8 * scale / GROUP_SIZE
        total += math.ceil(math.prod(tensor.shape) * bits / 8)
    return total


def kept_bytes(directory: Path, dtype: str | None, quantize: Recipe | None) -> int:
    """Bytes of a number of the keys and values that a flow loaded like this keeps."""
    config = read_json(Path(directory) / "config.json")
    if config.pop("quantization", None) is not None or quantize is not None:
        return 2
    tensors = list(_tensors(Path(directory)))
    target = _target("flow", tensors, dtype, False)
    if target is not None:
        return target
    sizes = [ITEM_BYTES[t.dtype] for t in tensors if takes_type("flow", t.name)]
    return min(sizes, default=4)


def _target(kind: str, tensors: list[TensorInfo], dtype: str | None, quantized: bool) -> int | None:
    """Bytes of a number of what takes a type, None: as stored."""
    if dtype is not None:
        return ITEM_BYTES[{"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]]
    numbers = sum(math.prod(t.shape) for t in tensors)
    chosen = default_type(kind, 4 * numbers, quantized)
    return None if chosen is None else chosen.size


def sampling_bytes(
    flow: FlowConfig, grid: Grid, batch: int, guided: bool, item: float, window: int | None = None
) -> int:
    """Keys, values and activations while the neediest block is inverted. ``window``: latent frames
    of a clip that the deep block has in one sequence."""
    needs = []
    for index, block in enumerate(flow.blocks):
        order = order_of(block, flow, grid)
        tokens = order.grid.tokens
        if window is not None and order.grid.frames is not None and index == len(flow.blocks) - 1:
            tokens = min(window, order.grid.frames) * grid.frame_tokens
        rows = batch * (2 if guided and (block.conditioned or flow.num_classes) else 1)
        rows *= order.sequences
        length = tokens + (flow.text_length if block.conditioned else 0)
        cache = keys_bytes(block, length, rows, item)
        if item < 2:  # those of one layer are unpacked where they are used
            cache += keys_bytes(dataclasses.replace(block, layers=1), length, rows, 2)
        # A window may be the whole sequence, unless that is long.
        queries = tokens if length <= LONG else CHUNK
        stream = 0 if length <= LONG else 8 * length * block.channels
        # Blocks that read frames one by one are solved a token of each at a time.
        if order.sequences > 1:
            queries = 1
        layer = _layer_bytes(block, queries, length)
        needs.append(cache + _MARGIN * rows * (layer + stream))
    return int(max(needs))


def keys_bytes(block: BlockConfig, length: int, rows: int, item: float) -> float:
    """Keys and values of all layers of a block for sequences of so many places; ``item``: bytes of
    a number."""
    return 2 * block.layers * block.kv_heads * block.head_dim * length * rows * item


def denoising_bytes(
    flow: FlowConfig, grid: Grid, batch: int, learned: bool, window: int | None = None
) -> int:
    """The backward pass of the score, or the learned denoiser's forward pass. ``window``: latent
    frames of a clip that are denoised together."""
    if grid.frames is not None and window is not None:
        grid = grid.with_frames(min(window, grid.frames))
    if learned and flow.denoiser is not None:
        return int(batch * _denoiser_bytes(flow, flow.denoiser, grid))
    kept = inputs = largest = plain = 0
    work = 0.0
    for block in flow.blocks:
        order = order_of(block, flow, grid)
        rows = order.sequences
        length = order.grid.tokens + (flow.text_length if block.conditioned else 0)
        layer = rows * _layer_bytes(block, length, length, gradient=True)
        kept += block.layers * layer
        plain += block.layers * rows * _layer_bytes(block, length, length)
        inputs += (block.layers + 1) * rows * length * block.channels * 4
        largest = max(largest, layer)
        work += 3 * batch * block.layers * layer_operations(block, rows, length)
    if plain * batch <= CHECKPOINT_BYTES and work <= LARGEST:
        return int(kept * batch)
    # One picture and one layer at a time; what goes into each layer is kept.
    return int(inputs + largest)


def _denoiser_bytes(flow: FlowConfig, block: BlockConfig, grid: Grid) -> float:
    """Activations of the learned denoiser for one picture or clip."""
    length = grid.tokens + (flow.text_length if block.conditioned else 0)
    if grid.frames is None or not flow.temporal_causal:
        return _MARGIN * _layer_bytes(block, length, length)
    # All queries, keys and values; of the rest the residual stream and a few places at a time.
    whole = 4 * length * (3 * block.channels + 3 * block.heads * block.head_dim)
    seen = (flow.denoiser_window or grid.frames) + 1
    keys = min(length, flow.text_length + seen * grid.frame_tokens)
    one = _layer_bytes(block, grid.frame_tokens, keys)
    return _MARGIN * (whole + max(one, _layer_bytes(block, min(length, MANY), 0)))


def _layer_bytes(block: BlockConfig, queries: int, length: int, gradient: bool = False) -> int:
    """Activations of one layer for one row, in float32."""
    if not block.layers:
        return 0
    on_cpu = not on_gpu()
    # On a CPU the exact GELU is a polynomial, and its gradient keeps every step of it.
    steps = 21 if on_cpu and gradient and not block.gated_mlp else 3
    hidden = queries * (8 * block.channels + steps * block.mlp_channels)
    # A GPU's fused attention has no array of scores, but there is none for gradients.
    scores = 2 * block.heads * queries * length if on_cpu or gradient else 0
    return 4 * (hidden + scores)


def _text_need(components: Components, quantize: Recipe | None) -> tuple[int, int]:
    """Weights of the text encoder, and what encoding takes beside them."""
    text = components.config.text
    if text is None or not components.has("text_encoder"):
        return 0, 0
    path = components.path("text_encoder")
    if text.encoder == "gemma_tokens":
        table = [t for t in _tensors(path) if t.name.startswith(_TABLE)]
        return sum(t.end - t.begin for t in table), text.length * text.channels * 8
    fields = Fields(read_json(path / "config.json"), str(path / "config.json"))
    hidden = fields.whole("d_ff", 0) or fields.whole("intermediate_size", 0) or 4 * text.channels
    heads = fields.whole("num_heads", 0) or fields.whole("num_attention_heads", 0) or 1
    numbers = text.length * (10 * text.channels + 3 * hidden) + 3 * heads * text.length**2
    return component_bytes(path, quantize=quantize), 4 * numbers


def _tensors(directory: Path) -> Iterator[TensorInfo]:
    for path in weight_files(directory):
        yield from read_header(path)
