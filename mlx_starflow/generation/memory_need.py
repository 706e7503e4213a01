"""The memory that drawing a picture needs, from file headers and configurations.

Weights are counted exactly, in the precision in which they are loaded. The rest (KV cache,
activations of denoising and decoding) is an estimate that is meant to be somewhat too high.
"""

from __future__ import annotations

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
from ..device.products import unpack_rows
from ..exact.denoise import CHECKPOINT_BYTES
from ..files.fields import Fields
from ..flow import layer_operations
from .components import Components
from .settings import Settings

_TABLE = "model.embed_tokens."
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
    flow = components.flow_config
    recipe = quantize if quantize is not None else components.quantize
    path = components.path("flow")
    resident = component_bytes(path, components.dtype, recipe)
    whole = component_bytes(path, components.dtype, None)
    text, encoding = _text_need(components, quantize if stored else None)
    batch = len(settings.prompts)
    height, width = settings.height // components.factor, settings.width // components.factor
    tokens = height * width // flow.patch_size**2
    item = kept_bytes(path, components.dtype, recipe)
    learned = flow.denoiser is not None and settings.denoiser != "score"
    denoising = denoising_bytes(flow, tokens, batch, learned) if settings.denoise else 0
    if settings.denoise and _is_quantized(path, recipe):
        target = _target("flow", list(_tensors(path)), components.dtype, True)
        denoising += unpacked_bytes(flow, tokens, batch, learned, 2 if target is None else target)
    return Need(
        text_encoder=text,
        flow=resident,
        vae=component_bytes(components.path("vae")) if components.has("vae") else 0,
        encoding=encoding,
        sampling=sampling_bytes(flow, tokens, batch, settings.sample.guidance > 0, item),
        denoising=denoising,
        decoding=components.decoding_bytes(height, width),
        loading=0 if stored or recipe is None or whole == resident else whole,
    )


def component_bytes(
    directory: Path, dtype: str | None = None, quantize: Recipe | None = None
) -> int:
    """Bytes of the weights that ``load_component`` with the same arguments holds in memory."""
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
        total += math.ceil(math.prod(tensor.shape) * bits / 8)
    return total


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
        return ITEM_BYTES[{"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]]
    numbers = sum(math.prod(t.shape) for t in tensors)
    chosen = default_type(kind, 4 * numbers, quantized)
    return None if chosen is None else chosen.size


def sampling_bytes(flow: FlowConfig, tokens: int, batch: int, guided: bool, item: int) -> int:
    """Bytes of KV cache and activations in the inversion of the block that needs most. ``item``:
    bytes per element of the cache."""
    needs = []
    for block in flow.blocks:
        rows = batch * (2 if guided and (block.conditioned or flow.num_classes) else 1)
        length = _length(flow, block, tokens)
        cache = 2 * block.layers * block.kv_heads * block.head_dim * length * rows * item
        # Activations of a pass over the whole sequence, which may be the window.
        needs.append(cache + _MARGIN * rows * layer_bytes(block, tokens, length))
    return int(max(needs))


def denoising_bytes(flow: FlowConfig, tokens: int, batch: int, learned: bool) -> int:
    """Bytes of activations in the backward pass of the score, or, if ``learned``, in the forward
    pass of the learned denoiser."""
    if learned and flow.denoiser is not None:
        length = _length(flow, flow.denoiser, tokens)
        return int(_MARGIN * batch * layer_bytes(flow.denoiser, length, length))
    kept = inputs = largest = 0
    for block in flow.blocks:
        length = _length(flow, block, tokens)
        layer = layer_bytes(block, length, length, gradient=True)
        kept += block.layers * layer
        inputs += (block.layers + 1) * length * block.channels * 4
        largest = max(largest, layer)
    if _keeps_all(flow, tokens, batch):
        return int(kept * batch)
    # One picture and one layer at a time; the input of each layer is stored.
    return int(inputs + largest)


def _keeps_all(flow: FlowConfig, tokens: int, batch: int) -> bool:
    """Whether the score's backward pass keeps all layers, as ``score`` decides it."""
    plain, work = 0, 0.0
    for block in flow.blocks:
        length = _length(flow, block, tokens)
        plain += batch * block.layers * layer_bytes(block, length, length)
        work += 3 * batch * block.layers * layer_operations(block, 1, length)
    return plain <= CHECKPOINT_BYTES and work <= LARGEST


def _length(flow: FlowConfig, block: BlockConfig, tokens: int) -> int:
    return tokens + (flow.text_length if block.conditioned else 0)


def unpacked_bytes(flow: FlowConfig, tokens: int, batch: int, learned: bool, item: int) -> int:
    """Bytes of the matrices of a quantized flow that denoising unpacks: those of one layer, or of
    all layers if the backward pass stores them. ``item``: bytes per element."""
    all_layers = not learned and _keeps_all(flow, tokens, batch)
    rows = (batch if learned or all_layers else 1) * tokens
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


def layer_bytes(block: BlockConfig, queries: int, length: int, gradient: bool = False) -> int:
    """Bytes of the activations of one layer for one row, in float32."""
    if not block.layers:
        return 0
    on_cpu = not on_gpu()
    # On a CPU the exact GELU is a rational function, all of whose steps are stored for gradients.
    steps = 21 if on_cpu and gradient and not block.gated_mlp else 3
    hidden = queries * (8 * block.channels + steps * block.mlp_channels)
    # On a GPU the attention is fused and does not store the scores, except for gradients.
    scores = 2 * block.heads * queries * length if on_cpu or gradient else 0
    return 4 * (hidden + scores)


def _text_need(components: Components, quantize: Recipe | None) -> tuple[int, int]:
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
    return component_bytes(path, quantize=quantize), 4 * numbers


def _tensors(directory: Path) -> Iterator[TensorInfo]:
    for path in weight_files(directory):
        yield from read_header(path)
