"""From a model's name to its directory: local, converted earlier, or downloaded and converted now.

A model that is complete on disk is used without the network. The converter is an argument, since
this package does not depend on ``convert``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..bundle.check import problem_in_bundle, problem_in_component
from ..config import is_repository
from ..errors import HubError, ModelNotFoundError
from .cache import cache_directory, cached_path, locked
from .download import (
    DownloadPlan,
    RemoteFile,
    Tell,
    cached_checkpoint,
    cached_component,
    check_space,
    checkpoint_files,
    component_files,
    fetch,
    has_licence,
    hub_cache,
    list_repository,
    missing_files,
)
from .integrity import blob_is_whole
from .known import DEFAULT, KNOWN, KnownModel, known_model
from .locate import EMBEDDED, embedded, locate
from .resumable import partial_bytes

BUNDLE_FILES = (".json", ".safetensors", ".model", ".txt", ".jinja", "SHA256SUMS")


@dataclass(frozen=True)
class Sources:
    """A published model that is downloaded completely, and how to convert it."""

    model: KnownModel
    checkpoint: Path
    vae: Path | None  # diffusers directory
    text_encoder: Path | None  # transformers directory
    quantize: int | str | None = None  # 4, 8, "mixed", or None for ``KnownModel.dtype``


@dataclass(frozen=True)
class ConversionStarted:
    """Event: all files are downloaded, and the conversion to ``output`` begins."""

    model: str
    output: Path


Converter = Callable[[Sources, Path], Any]  # writes the bundle to the path, whole or not at all
ComponentConverter = Callable[[Path, str, Path], Any]  # source directory, kind, target directory


def resolve(
    model: str | Path | None,
    converter: Converter | None = None,
    quantize: int | str | None = None,
    tell: Tell | None = None,
) -> Path:
    """The directory of the bundle of a model.

    ``model`` is, in this order: None for the embedded model of pictures; the name of an embedded
    model; a directory; the name of a known model, whose converted copy in the cache is used, or
    made by downloading and converting; a hub repository that contains a bundle.

    quantize: for a known model, the precision of the converted copy. If the published files are no
    longer on this disk but an unquantized copy is, that copy is returned; loading then quantizes
    the same matrices, but needs the memory for the unquantized ones first.
    converter: None: use only what is on this disk, and download nothing.
    tell: receives DownloadPlan, DownloadProgress and ConversionStarted.
    Errors: ModelNotFoundError, HubError, and those of the conversion.
    """
    name = DEFAULT if model is None else str(model)
    path = Path(name).expanduser()
    if name in EMBEDDED or path.is_dir():
        return locate(model)
    if path.is_file():
        raise ModelNotFoundError(
            f"{name} is a file. Convert it first: mlx-starflow convert {name} --output DIR"
        )
    known = known_model(name)
    if known is not None:
        return _known(known, converter, quantize, tell)
    if is_repository(name):
        return _repository(name, converter is not None, tell)
    names = ", ".join([*embedded(), *(m.name for m in KNOWN)])
    raise ModelNotFoundError(
        f"{name}: no directory of this name, no known model ({names}), and no hub repository "
        "(owner/name)."
    )


def resolve_component(
    bundle: Path,
    reference: str,
    kind: str,
    converter: ComponentConverter | None = None,
    tell: Tell | None = None,
) -> Path:
    """The directory of a component of kind "vae" or "text_encoder": inside the bundle, or, for a
    reference to a repository ("hub:owner/name"), its converted copy in the cache.

    converter, tell: as for ``resolve``. Errors: ModelNotFoundError, HubError, and those of the
    conversion.
    """
    if not reference.startswith("hub:"):
        return bundle / reference
    repository = reference.removeprefix("hub:")
    target = cache_directory() / "components" / f"{repository.replace('/', '--')}@{kind}"
    if problem_in_component(target) is None:
        return target
    if converter is None:
        raise _absent(repository)
    with locked(target):
        if problem_in_component(target) is None:
            return target
        source = download_component(repository, kind, tell)
        if tell is not None:
            tell(ConversionStarted(repository, target))
        converter(source, kind, target)
    return target


def download_component(repository: str, kind: str, tell: Tell | None = None) -> Path:
    """The directory, in the hub's cache, of a VAE or text encoder as published.

    Downloads only what is not complete. Errors: HubError.
    """
    found = cached_component(repository, kind)
    if found is None:
        _download(repository, component_files(repository, kind), "", 0, tell)
        found = cached_component(repository, kind)
    if found is None:
        raise HubError(f"{repository} changed while it was downloaded. Run the same command again.")
    return found


def precision_of(model: KnownModel, quantize: int | str | None) -> str:
    """The precision in the name of a converted copy in the cache: "bfloat16", "4-bit", "mixed"."""
    if quantize is None:
        return model.dtype
    return f"{quantize}-bit" if isinstance(quantize, int) else quantize


def _known(
    model: KnownModel,
    converter: Converter | None,
    quantize: int | str | None,
    tell: Tell | None,
) -> Path:
    target = cached_path(model.name, precision_of(model, quantize))
    if problem_in_bundle(target) is None:
        return target
    unquantized = cached_path(model.name, model.dtype)
    if not (converter and _downloaded(model)) and problem_in_bundle(unquantized) is None:
        return unquantized
    if converter is None:
        raise _absent(model.name)
    with locked(target):
        if problem_in_bundle(target) is None:  # another process has just made it
            return target
        if target.exists():
            raise HubError(
                f"The converted copy of {model.name} is not complete: {problem_in_bundle(target)} "
                f"Remove it (mlx-starflow models remove {model.name}) and run this again."
            )
        sources = _sources(model, quantize, tell)
        if tell is not None:
            tell(ConversionStarted(model.name, target))
        converter(sources, target)
    return target


def _downloaded(model: KnownModel) -> bool:
    """Whether all published files of a model are complete on this disk."""
    parts = [(model.vae, "vae"), (model.text_encoder, "text_encoder")]
    return cached_checkpoint(model.repository, model.checkpoint) is not None and all(
        cached_component(repository, kind) is not None for repository, kind in parts if repository
    )


def _sources(model: KnownModel, quantize: int | str | None, tell: Tell | None) -> Sources:
    """The published files of a model; downloads those that are not in the hub's cache."""
    parts = [(model.vae, "vae"), (model.text_encoder, "text_encoder")]
    needed: list[RemoteFile] = []
    if cached_checkpoint(model.repository, model.checkpoint) is None:
        needed += checkpoint_files(model.repository, model.checkpoint)
    elif not has_licence(model.repository, model.checkpoint):
        needed += _licences(model)
    for repository, kind in parts:
        if repository and cached_component(repository, kind) is None:
            needed += component_files(repository, kind)
    if needed:
        converted = model.checkpoint_bytes // (1 if model.dtype == "float32" else 2)
        terms = " ".join(filter(None, (model.licence, model.attribution)))
        _download(model.name, needed, terms, converted, tell)
    found = [cached_component(r, kind) if r else None for r, kind in parts]
    checkpoint = cached_checkpoint(model.repository, model.checkpoint)
    for (repository, _), path in zip(parts, found, strict=True):
        if repository and path is None or checkpoint is None:
            raise HubError(
                f"{repository} changed while it was downloaded. Run the same command again."
            )
    return Sources(model, cast(Path, checkpoint), found[0], found[1], quantize)


def _licences(model: KnownModel) -> list[RemoteFile]:
    """The licence files for a checkpoint that another program downloaded without them. Errors:
    HubError if they cannot be found out and the licence must be kept with copies."""
    try:
        return checkpoint_files(model.repository, model.checkpoint)
    except HubError as error:
        if not model.attribution:
            return []
        raise HubError(f"The licence of {model.name} is not on this disk. {error}") from error


def _download(
    name: str, files: list[RemoteFile], licence: str, converted: int, tell: Tell | None
) -> None:
    """Download the missing files. Sends a DownloadPlan and checks the free space first.
    ``converted``: bytes that the conversion will need."""
    missing = tuple(missing_files(files))
    plan = DownloadPlan(name, missing, licence, hub_cache())
    if not missing:
        return
    if tell is not None:
        tell(plan)
    # Both caches are usually on one disk. If they are not, this asks for more than necessary.
    here = sum(partial_bytes(repository) for repository in {f.repository for f in missing})
    check_space(hub_cache(), plan.bytes - here + converted, f"Downloading {name}")
    for file in missing:
        fetch(file, tell)


def _repository(name: str, download: bool, tell: Tell | None) -> Path:
    """The directory of a hub repository that contains a bundle, downloaded if necessary."""
    config = cached_checkpoint(name, "config.json")
    if config is not None and problem_in_bundle(config.parent) is None:
        held = [path for path in config.parent.rglob("*") if path.is_file()]
        if all(blob_is_whole(path) for path in held):
            return config.parent
    if not download:
        raise _absent(name)
    listing = list_repository(name)
    if "config.json" not in listing or "flow/config.json" not in listing:
        checkpoints = [f for f in listing if f.endswith((".pth", ".pt"))]
        has = f"; it has {', '.join(sorted(checkpoints)[:4])}" if checkpoints else ""
        raise ModelNotFoundError(
            f"{name} contains no converted model (config.json and flow/config.json){has}. Download "
            "its checkpoint and use: mlx-starflow convert FILE --output DIR"
        )
    licences = [f for f in listing if "LICEN" in os.path.basename(f).upper()]
    others = [f for f in listing if f.endswith(BUNDLE_FILES) and f not in licences]
    # config.json last: a bundle that has it also has its licences and all other files.
    last = [f for f in others if f == "config.json"]
    wanted = [*licences, *(f for f in others if f not in last), *last]
    files = [RemoteFile(name, file, listing[file]) for file in wanted]
    _download(name, files, "See the repository's own licence.", 0, tell)
    directory = fetch(RemoteFile(name, "config.json", listing["config.json"])).parent
    problem = problem_in_bundle(directory)
    if problem is not None:
        raise HubError(f"{name} is incomplete on the hub: {problem} Report it to its owner.")
    return directory


def _absent(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{name} is not on this disk. Download it with: mlx-starflow models download {name}"
    )
