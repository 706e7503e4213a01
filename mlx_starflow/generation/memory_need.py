"""The memory that drawing a picture needs, from file headers and configurations.

Weights are counted exactly, in the precision in which they are loaded. The rest (KV cache,
activations of denoising and decoding) is an estimate that is meant to be somewhat too high.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..bundle.dtypes import FLOAT_CODES, code_named
from ..bundle.load import read_json, weight_files
from ..bundle.quantize import GROUP_SIZE, Recipe, bits_of, component_kind, is_matrix, takes_type
from ..bundle.safetensors import ITEM_BYTES, TensorInfo, read_header
from ..bundle.types import default_type
from ..config import BlockConfig, FlowConfig
from ..device.activations import on_gpu
from ..device.pieces import is_short
from ..device.products import unpack_rows
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
# Bytes per element of the cache by kv_bits; each group of 64 has a scale and a bias of 16 bits.
KEPT_IN = {16: 2.0, 8: 1 + 4 / 64, 4: 0.5 + 4 / 64}
_MARGIN = 1.5  # measured activations took up to 1.4 times the counted bytes


@dataclass(frozen=True)
class Need:
    """Bytes for one request in one precision."""

    text_encoder: int  # weights
    flow: int  # weights
    vae: int  # weights
    encoding: int  # activations while prompts are encoded
    sampling: int  # KV cache and activations
    denoising: int  # activations
    decoding: int  # activations
    loading: int  # the flow's weights before they are quantized in memory; 0 if they are not

    def peak(self, low_ram: bool) -> int:
        """Peak bytes. With ``low_ram`` only one component is in memory at a time."""
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
    """The memory that a request needs. ``quantize``: assume this precision instead of the
    components'. ``stored``: assume that the bundle is stored in it, so that nothing is quantized
    in memory."""
    share = None if components.split is None else components.split.share
    ranks = 1 if share is None else share.size
    flow = share_of(components.flow_config, ranks)
    recipe = quantize if quantize is not None else components.quantize
    path = components.path("flow")
    resident = component_bytes(path, components.dtype, recipe, ranks)
    whole = component_bytes(path, components.dtype, None, ranks)
    text, encoding = _text_need(components, quantize if stored else None, ranks)
    batch = len(settings.prompts)
    height, width = settings.height // components.factor, settings.width // components.factor
    frames = settings.latent_frames(components.config)
    grid = Grid(height // flow.patch_size, width // flow.patch_size, frames)
    window = settings.sample.window
    kept = kept_bytes(path, components.dtype, recipe)
    item = KEPT_IN.get(settings.sample.kv_bits or 0, float(kept))
    learned = flow.denoiser is not None and settings.denoiser != "score"
    piece = settings.denoising_window(components.config, flow)
    denoising = denoising_bytes(flow, grid, batch, learned, piece) if settings.denoise else 0
    if settings.denoise and _is_quantized(path, recipe):
        target = _target("flow", list(_tensors(path)), components.dtype, True)
        each = 2 if target is None else target
        denoising += unpacked_bytes(flow, grid, batch, learned, each, piece)
    return Need(
        text_encoder=text,
        flow=resident,
        vae=component_bytes(components.path("vae")) if components.has("vae") else 0,
        encoding=encoding,
        sampling=sampling_bytes(flow, grid, batch, settings.sample.guidance > 0, item, window),
        denoising=denoising,
        decoding=components.decoding_bytes(height, width, settings.vae_tiling),
        loading=0 if stored or recipe is None or whole == resident else whole,
    )


def component_bytes(
    directory: Path, dtype: str | None = None, quantize: Recipe | None = None, ranks: int = 1
) -> int:
    """Bytes of the weights that ``load_component`` with the same arguments holds in memory.
    ``ranks``: number of ranks that share the matrices of a flow or a T5."""
    config = read_json(Path(directory) / "config.json")
    stored = config.pop("quantization", None) is not None
    kind, tensors = component_kind(config), list(_tensors(Path(directory)))
    target = _target(kind, tensors, dtype, stored or quantize is not None)
    total = 0
    for tensor in tensors:
        item = ITEM_BYTES[tensor.dtype]
        module, _, leaf = tensor.name.rpartition(".")
        if tensor.dtype not in FLOAT_CODES:
            pass  # quantized weights are not cast
        elif not takes_type(kind, tensor.name):
            item = 4 if kind == "vae" else item
        elif target is not None:
            item = target
        elif leaf in ("scales", "biases"):
            item = 2  # float16, the default on a GPU
        bits: float = 8 * item
        whole_groups = tensor.shape and tensor.shape[-1] % GROUP_SIZE == 0
        if (
            quantize is not None
            and leaf == "weight"
            and tensor.dtype in FLOAT_CODES
            and is_matrix(kind, module)
            and whole_groups
        ):
            # Plus a scale and a bias per group.
            scale = 2 if target is None else item
            bits = bits_of(quantize, module, config) + 2 * 8 * scale / GROUP_SIZE
        if is_matrix(kind, module) and (kind == "flow" or config.get("model_type") == "t5"):
            bits /= ranks
        total += math.ceil(math.prod(tensor.shape) * bits / 8)
    return total


def share_of(flow: FlowConfig, ranks: int) -> FlowConfig:
    """The configuration with the heads and the channels of MLPs that one of the ranks has."""
    if ranks == 1:
        return flow

    def cut(block: BlockConfig) -> BlockConfig:
        return dataclasses.replace(
            block,
            heads=block.heads // ranks,
            kv_heads=max(1, block.kv_heads // ranks),
            mlp_channels=block.mlp_channels // ranks,
        )

    denoiser = None if flow.denoiser is None else cut(flow.denoiser)
    blocks = tuple(cut(block) if block.layers else block for block in flow.blocks)
    return dataclasses.replace(flow, blocks=blocks, denoiser=denoiser)


def kept_bytes(directory: Path, dtype: str | None, quantize: Recipe | None) -> int:
    """Bytes per element of the KV cache of a flow that is loaded with these arguments."""
    if _is_quantized(directory, quantize):
        return 2
    tensors = list(_tensors(Path(directory)))
    target = _target("flow", tensors, dtype, False)
    if target is not None:
        return target
    sizes = [ITEM_BYTES[t.dtype] for t in tensors if takes_type("flow", t.name)]
    return min(sizes, default=4)


def _is_quantized(directory: Path, quantize: Recipe | None) -> bool:
    """Whether a component that is loaded with these arguments has quantized matrices."""
    return quantize is not None or "quantization" in read_json(Path(directory) / "config.json")


def _target(kind: str, tensors: list[TensorInfo], dtype: str | None, quantized: bool) -> int | None:
    """Bytes per element of the tensors that are cast (see quantize.py); None: as stored."""
    if dtype is not None:
        return ITEM_BYTES[code_named(dtype)]
    numbers = sum(math.prod(t.shape) for t in tensors)
    chosen = default_type(kind, 4 * numbers, quantized)
    return None if chosen is None else chosen.size


def sampling_bytes(
    flow: FlowConfig, grid: Grid, batch: int, guided: bool, item: float, window: int | None = None
) -> int:
    """Bytes of KV cache and activations in the inversion of the block that needs most. ``item``:
    bytes per element of the cache. ``window``: most latent frames of a clip in one sequence of the
    deep block; None: all."""
    needs = []
    for index, block in enumerate(flow.blocks):
        order = order_of(block, flow, grid)
        tokens = order.grid.tokens
        if window is not None and order.grid.frames is not None and index == len(flow.blocks) - 1:
            tokens = min(window, order.grid.frames) * grid.frame_tokens
        rows = batch * (2 if guided and (block.conditioned or flow.num_classes) else 1)
        rows *= order.sequences
        length = _length(flow, block, tokens)
        cache = keys_bytes(block, length, rows, item)
        if item < 2:  # a layer's cache is unpacked while it is used
            cache += keys_bytes(dataclasses.replace(block, layers=1), length, rows, 2)
        # Activations of a pass over the whole sequence, which may be the window, or over CHUNK
        # places of a long one, whose residual stream is there twice.
        queries = tokens if length <= LONG else CHUNK
        stream = 0 if length <= LONG else 8 * length * block.channels
        # A block that reads each frame by itself is solved one token of every frame at a time.
        if order.sequences > 1:
            queries = 1
        layer = layer_bytes(block, queries, length)
        needs.append(cache + _MARGIN * rows * (layer + stream))
    return int(max(needs))


def keys_bytes(block: BlockConfig, length: int, rows: int, item: float) -> float:
    """Bytes of the KV cache of a block, all layers, for ``rows`` sequences of ``length`` places.
    ``item``: bytes per element."""
    return 2 * block.layers * block.kv_heads * block.head_dim * length * rows * item


def denoising_bytes(
    flow: FlowConfig, grid: Grid, batch: int, learned: bool, window: int | None = None
) -> int:
    """Bytes of activations in the backward pass of the score, or, if ``learned``, in the forward
    pass of the learned denoiser. ``window``: latent frames of a clip that are denoised together;
    None: all."""
    grid = _piece(grid, window)
    if learned and flow.denoiser is not None:
        return int(batch * _denoiser_bytes(flow, flow.denoiser, grid))
    kept = inputs = largest = 0
    for block in flow.blocks:
        rows, length = _sequences(flow, block, grid)
        layer = rows * layer_bytes(block, length, length, gradient=True)
        kept += block.layers * layer
        inputs += (block.layers + 1) * rows * length * block.channels * 4
        largest = max(largest, layer)
    if _keeps_all(flow, grid, batch):
        return int(kept * batch)
    # One picture and one layer at a time; the input of each layer is stored.
    return int(inputs + largest)


def _piece(grid: Grid, window: int | None) -> Grid:
    """The grid of the frames that are denoised together."""
    if grid.frames is None or window is None:
        return grid
    return grid.with_frames(min(window, grid.frames))


def _keeps_all(flow: FlowConfig, grid: Grid, batch: int) -> bool:
    """Whether the score's backward pass keeps all layers, as ``score`` decides it."""
    plain, work = 0, 0.0
    for block in flow.blocks:
        rows, length = _sequences(flow, block, grid)
        plain += batch * block.layers * rows * layer_bytes(block, length, length)
        work += 3 * batch * block.layers * layer_operations(block, rows, length)
    return plain <= CHECKPOINT_BYTES and is_short(work)


def _sequences(flow: FlowConfig, block: BlockConfig, grid: Grid) -> tuple[int, int]:
    """The number and the length of the sequences in which a block reads one picture or clip."""
    order = order_of(block, flow, grid)
    return order.sequences, _length(flow, block, order.grid.tokens)


def _length(flow: FlowConfig, block: BlockConfig, tokens: int) -> int:
    return tokens + (flow.text_length if block.conditioned else 0)


def unpacked_bytes(
    flow: FlowConfig, grid: Grid, batch: int, learned: bool, item: int, window: int | None = None
) -> int:
    """Bytes of the matrices of a quantized flow that denoising unpacks: those of one layer, or of
    all layers if the backward pass stores them. ``item``: bytes per element. ``window``: as for
    ``denoising_bytes``."""
    grid = _piece(grid, window)
    all_layers = not learned and _keeps_all(flow, grid, batch)
    rows = (batch if learned or all_layers else 1) * grid.tokens
    if rows < unpack_rows():
        return 0
    if learned and flow.denoiser is not None:
        return item * _matrices(flow.denoiser)
    sizes = [_matrices(block) for block in flow.blocks]
    layers = [block.layers * size for block, size in zip(flow.blocks, sizes, strict=True)]
    return item * (sum(layers) if all_layers else max(sizes))


def _matrices(block: BlockConfig) -> int:
    """Numbers in the matrices of one layer."""
    inner, kv = block.heads * block.head_dim, block.kv_heads * block.head_dim
    mlp = (3 if block.gated_mlp else 2) * block.mlp_channels
    return block.channels * (2 * inner + 2 * kv + mlp)


def _denoiser_bytes(flow: FlowConfig, block: BlockConfig, grid: Grid) -> float:
    """Bytes of activations of the learned denoiser for one picture or clip."""
    length = _length(flow, block, grid.tokens)
    if grid.frames is None or not flow.temporal_causal:
        return _MARGIN * layer_bytes(block, length, length)
    # All queries, keys and values; of the rest the residual stream and a few places at a time.
    whole = 4 * length * (3 * block.channels + 3 * block.heads * block.head_dim)
    seen = (flow.denoiser_window or grid.frames) + 1
    keys = min(length, flow.text_length + seen * grid.frame_tokens)
    one = layer_bytes(block, grid.frame_tokens, keys)
    return _MARGIN * (whole + max(one, layer_bytes(block, min(length, MANY), 0)))


def layer_bytes(block: BlockConfig, queries: int, length: int, gradient: bool = False) -> int:
    """Bytes of the activations of one layer for one row, in float32."""
    if not block.layers:
        return 0
    hidden = queries * (8 * block.channels + 3 * block.mlp_channels)
    # On a GPU the attention is fused and does not store the scores, except for gradients.
    scores = 0 if on_gpu() and not gradient else 2 * block.heads * queries * length
    return 4 * (hidden + scores)


def _text_need(components: Components, quantize: Recipe | None, ranks: int) -> tuple[int, int]:
    """Bytes of the text encoder's weights, and of the activations of encoding."""
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
    return component_bytes(path, quantize=quantize, ranks=ranks), 4 * numbers


def _tensors(directory: Path) -> Iterator[TensorInfo]:
    for path in weight_files(directory):
        yield from read_header(path)
