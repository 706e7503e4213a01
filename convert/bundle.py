"""Converting a checkpoint, with VAE and text encoder, to a bundle, one tensor at a time."""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from mlx_starflow.bundle.copying import TOKENIZER_FILES, copy_beside
from mlx_starflow.bundle.dtypes import code_named
from mlx_starflow.bundle.load import write_json
from mlx_starflow.bundle.quantize import (
    GROUP_SIZE,
    bits_of,
    check_recipe,
    is_matrix,
    quantization_block,
    takes_type,
)
from mlx_starflow.bundle.safetensors import ShardWriter
from mlx_starflow.config import ModelConfig, SourceConfig, TextConfig
from mlx_starflow.files.regular import is_regular
from mlx_starflow.version import __version__

from .components import component_directory, licence_files, licence_of
from .options import ConvertOptions, ConvertProgress, ConvertReport
from .read.digest import RunningDigest
from .read.sources import Checkpoint, open_checkpoint
from .rules.architecture import Architecture
from .rules.autoencoders import autoencoder_stores, open_autoencoder
from .rules.families import read_architecture
from .rules.layout import account, flow_layout
from .rules.text import text_source
from .write.staging import check_space, check_target, staged_directory
from .write.storing import Store
from .write.verify import verify_bundle

Event = ConvertProgress | ConvertReport


@dataclasses.dataclass(frozen=True)
class _Part:
    """A component to be written."""

    name: str
    config: dict[str, Any]  # for its config.json
    stores: list[Store]
    sources: Checkpoint
    files: tuple[Path, ...] = ()  # copied unchanged

    @property
    def written_bytes(self) -> int:
        """Size of the tensors in the bundle."""
        return sum(plan.nbytes for store in self.stores for plan in store.plans())

    @property
    def source_bytes(self) -> int:
        """Size of the tensors in the checkpoint."""
        return sum(_source_bytes(store) for store in self.stores)


def convert_checkpoint(options: ConvertOptions) -> ConvertReport:
    """Convert a checkpoint to a bundle. Errors: StarflowError; then no files are left behind."""
    report: Event | None = None
    for event in convert_steps(options):
        report = event
    return cast(ConvertReport, report)


def convert_steps(options: ConvertOptions) -> Generator[Event, None, None]:
    """``convert_checkpoint`` as a generator: yields ConvertProgress after every piece of a tensor
    and the ConvertReport at the end.

    Keys, shapes and disk space are checked before anything is written. The output directory appears
    when the bundle is complete. Closing the generator cancels and leaves no files behind.
    """
    started = time.monotonic()
    check_target(options.output, options.overwrite)
    with ExitStack() as stack:
        vae = component_directory(options.vae, "vae")
        text = component_directory(options.text_encoder, "text_encoder")
        checkpoint = open_checkpoint(options.checkpoint, options.weights_key)
        stack.callback(checkpoint.close)
        autoencoder = None
        if vae is not None:
            vae_source, autoencoder = open_autoencoder(vae)
            stack.callback(vae_source.close)
        architecture = read_architecture(options, checkpoint, autoencoder)
        parts = [_flow_part(options, checkpoint, architecture)]
        if autoencoder is not None:
            stores = autoencoder_stores(vae_source, autoencoder)
            parts.append(_Part("vae", autoencoder.to_dict(), stores, vae_source))
        if text is not None:
            source = open_checkpoint(text)
            stack.callback(source.close)
            parts.append(_text_part(options, text, source, architecture.text))
        check_space(options.output, sum(part.written_bytes for part in parts))
        digests = [RunningDigest(part.sources.files) for part in parts]
        for digest in digests:
            stack.callback(digest.cancel)
        with staged_directory(options.output, options.overwrite) as work:
            for part, digest in zip(parts, digests, strict=True):
                yield from _write(part, work, digest)
            checkpoint_digest = [digest.finish() for digest in digests][0]
            for part in parts:
                for file in part.sources.files:
                    file.check_unchanged()
            config = _model_config(options, architecture, parts, checkpoint_digest)
            write_json(work / "config.json", config.to_dict())
            for path in licence_files(options.checkpoint):
                copy_beside(path, work)
            verified = None
            if options.verify:
                verified = yield from verify_bundle(work, parts[0].stores)
        yield ConvertReport(
            output=options.output,
            model_type=architecture.flow.model_type,
            parameters=sum(math.prod(s.shape) for s in parts[0].stores),
            source_bytes=checkpoint.nbytes,
            written_bytes=sum(part.written_bytes for part in parts),
            sha256=checkpoint_digest,
            seconds=time.monotonic() - started,
            components=config.components,
            dropped=tuple(sorted(architecture.dropped)),
            unquantized=tuple(m for part in parts for m in _left(part, options)),
            notes=checkpoint.notes,
            verified=verified,
        )


def _source_bytes(store: Store) -> int:
    return store.source.nbytes


def _code(options: ConvertOptions, kind: str, store: Store) -> str:
    """The safetensors code of the dtype in which a tensor is stored."""
    source = store.source.dtype
    kept = {"F64": "F32", "F8_E4M3": "BF16", "F8_E5M2": "BF16"}.get(source, source)
    if not takes_type(kind, store.name):
        return "F32"
    if options.dtype is not None:
        return code_named(options.dtype)
    return kept if options.quantize is None else "BF16"


def _typed(
    options: ConvertOptions, kind: str, config: dict[str, Any], stores: list[Store]
) -> tuple[dict[str, Any], list[Store]]:
    """The stores with their dtypes and bits, and the configuration with its "quantization"
    block."""
    result, bits = [], {}
    for store in stores:
        store = dataclasses.replace(store, dtype=_code(options, kind, store))
        if options.quantize is not None and _fits(kind, store):
            recipe = check_recipe(options.quantize)
            bits[store.module] = bits_of(recipe, store.module, config)
            store = dataclasses.replace(store, bits=bits[store.module])
        result.append(store)
    if bits:
        config = {**config, "quantization": quantization_block(bits)}
    return config, result


def _fits(kind: str, store: Store) -> bool:
    matrix = store.name.endswith(".weight") and is_matrix(kind, store.module)
    return matrix and store.shape[-1] % GROUP_SIZE == 0


def _left(part: _Part, options: ConvertOptions) -> list[str]:
    """The matrices that could not be quantized."""
    kind = {"flow": "flow", "text_encoder": "text", "vae": "vae"}[part.name]
    if options.quantize is None:
        return []
    return [s.name for s in part.stores if s.bits is None and is_matrix(kind, s.module)]


def _flow_part(
    options: ConvertOptions, checkpoint: Checkpoint, architecture: Architecture
) -> _Part:
    layout = flow_layout(architecture.flow)
    account(checkpoint.tensors, layout, architecture.dropped, str(checkpoint.path))
    stores = [
        Store(checkpoint.tensors[name], target.name, target.shape, "F32")
        for name, target in layout.items()
    ]
    config, stores = _typed(options, "flow", architecture.flow.to_dict(), stores)
    return _Part("flow", config, stores, checkpoint)


def _text_part(
    options: ConvertOptions, directory: Path, checkpoint: Checkpoint, wanted: TextConfig | None
) -> _Part:
    source = text_source(directory, checkpoint, wanted)
    stores = [Store(t, name, t.shape, "F32") for name, t in source.tensors.items()]
    config, stores = _typed(options, "text", source.config, stores)
    files = tuple(directory / name for name in TOKENIZER_FILES if is_regular(directory / name))
    return _Part("text_encoder", config, stores, checkpoint, files)


def _write(part: _Part, work: Path, digest: RunningDigest) -> Iterator[ConvertProgress]:
    """Write a component. Tensors are read in the order of the source files."""
    directory = work / part.name
    directory.mkdir()
    write_json(directory / "config.json", part.config)
    for path in part.files:
        copy_beside(path, directory)
    # In the file, tensors are sorted by name; they are written in the order of the source.
    stores = sorted(part.stores, key=lambda s: s.name)
    writer = ShardWriter(directory, [plan for store in stores for plan in store.plans()])
    order = {file: i for i, file in enumerate(part.sources.files)}
    stores.sort(key=lambda s: (order[s.source.file], s.source.begin, s.source.offset))
    done, total = 0, part.source_bytes
    try:
        for store in stores:
            for count in store.write(writer):
                done += count
                yield ConvertProgress(part.name, done, total)
            mx.clear_cache()
            digest.follow(order[store.source.file], store.source.end)
    except BaseException:
        writer.abort()
        raise
    writer.close()
    gc.collect()


def _model_config(
    options: ConvertOptions, architecture: Architecture, parts: list[_Part], sha256: str
) -> ModelConfig:
    components = {part.name: part.name for part in parts}
    for name, repository in (
        ("vae", architecture.vae),
        ("text_encoder", architecture.text_encoder),
    ):
        if repository and name not in components:
            components[name] = f"hub:{repository}"
    licence, attribution = licence_of(options)
    return ModelConfig(
        model_type=architecture.flow.model_type,
        name=options.name or options.checkpoint.stem,
        image_size=architecture.image_size,
        text=architecture.text,
        clips=architecture.clips,
        defaults=architecture.defaults,
        source=SourceConfig(options.checkpoint.name, sha256, f"mlx-starflow {__version__}"),
        licence=licence,
        attribution=attribution,
        components=components,
    )
