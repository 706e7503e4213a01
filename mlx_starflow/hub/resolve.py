"""From a model's name to its directory: local, converted earlier, or downloaded and converted now.

The order never changes, and whatever is complete on disk is used without asking the network.
Conversion is handed in, since knowledge of other frameworks' files lives outside this package.
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
from .known import EMBEDDED, KNOWN, KnownModel, known_model
from .locate import locate
from .resumable import partial_bytes

BUNDLE_FILES = (".json", ".safetensors", ".model", ".txt", ".jinja", "SHA256SUMS")


@dataclass(frozen=True)
class Sources:
    """A published model as downloaded, complete on disk, and what to make of it."""

    model: KnownModel
    checkpoint: Path
    vae: Path | None  # diffusers directory
    text_encoder: Path | None  # transformers directory
    quantize: int | str | None = None  # 4, 8, "mixed", or None for the model's own type


@dataclass(frozen=True)
class ConversionStarted:
    """Everything is downloaded; the converted copy will be at ``output``."""

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
    """Directory of the bundle that a name means.

    In this order: the embedded model (None or "default"), a directory, a known model's converted
    copy that is complete, the same after downloading and converting, a hub repository that holds
    a bundle. With ``quantize`` a copy of that precision is used, or made where the published files
    are on this disk; where only the unquantized copy is, that one (loading quantizes the same
    matrices, but holds all of them first).
    ``tell`` receives DownloadPlan before the first byte, DownloadProgress and ConversionStarted.
    Without a ``converter`` only what is on this disk is found, and nothing is downloaded.
    Errors: ModelNotFoundError, HubError, and those of conversion.
    """
    name = EMBEDDED if model is None else str(model)
    path = Path(name).expanduser()
    if name == EMBEDDED or path.is_dir():
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
    names = ", ".join([EMBEDDED, *(m.name for m in KNOWN)])
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
    """Directory of a component ("vae", "text_encoder"): inside the bundle, or, where config.json
    refers to a repository ("hub:owner/name"), its converted copy in the cache.

    Errors: HubError, and those of conversion.
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
    """Directory of a repository's VAE or text encoder as published, all of it in the hub's cache.

    Asks the network only for what is not complete. Errors: HubError.
    """
    found = cached_component(repository, kind)
    if found is None:
        _download(repository, component_files(repository, kind), "", 0, tell)
        found = cached_component(repository, kind)
    if found is None:
        raise HubError(f"{repository} changed while it was downloaded. Run the same command again.")
    return found


def precision_of(model: KnownModel, quantize: int | str | None) -> str:
    """How a converted copy is called in the cache: "bfloat16", "4-bit", "mixed", …"""
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
    """Whether all published files are complete on this disk."""
    parts = [(model.vae, "vae"), (model.text_encoder, "text_encoder")]
    return cached_checkpoint(model.repository, model.checkpoint) is not None and all(
        cached_component(repository, kind) is not None for repository, kind in parts if repository
    )


def _sources(model: KnownModel, quantize: int | str | None, tell: Tell | None) -> Sources:
    """The published files, fetched where they are not in the hub's cache."""
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
    """The licence files of a checkpoint that another program has downloaded alone. Errors: HubError
    where the hub cannot be asked and copies of the model must carry its licence."""
    try:
        return checkpoint_files(model.repository, model.checkpoint)
    except HubError as error:
        if not model.attribution:
            return []
        raise HubError(f"The licence of {model.name} is not on this disk. {error}") from error


def _download(
    name: str, files: list[RemoteFile], licence: str, converted: int, tell: Tell | None
) -> None:
    """Fetch what is missing, after saying what that is and checking that there is room."""
    missing = tuple(missing_files(files))
    plan = DownloadPlan(name, missing, licence, hub_cache())
    if not missing:
        return
    if tell is not None:
        tell(plan)
    # Both caches are usually on one disk; where they are not, this asks for a little too much.
    here = sum(partial_bytes(repository) for repository in {f.repository for f in missing})
    check_space(hub_cache(), plan.bytes - here + converted, f"Downloading {name}")
    for file in missing:
        fetch(file, tell)


def _repository(name: str, download: bool, tell: Tell | None) -> Path:
    """A hub repository that holds a bundle."""
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
            f"{name} holds no converted model (config.json and flow/config.json){has}. Download "
            "its checkpoint and use: mlx-starflow convert FILE --output DIR"
        )
    licences = [f for f in listing if "LICEN" in os.path.basename(f).upper()]
    others = [f for f in listing if f.endswith(BUNDLE_FILES) and f not in licences]
    last = [f for f in others if f == "config.json"]  # a bundle with it has its licences
    wanted = [*licences, *(f for f in others if f not in last), *last]
    files = [RemoteFile(name, file, listing[file]) for file in wanted]
    _download(name, files, "See the repository's own licence.", 0, tell)
    directory = fetch(RemoteFile(name, "config.json", listing["config.json"])).parent
    problem = problem_in_bundle(directory)
    if problem is not None:
        raise HubError(f"{name} is incomplete on the hub: {problem} Tell its owner.")
    return directory


def _absent(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{name} is not on this disk. Get it with: mlx-starflow models download {name}"
    )
