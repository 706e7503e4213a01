"""Files of hub repositories on this disk: what is needed, what is there, and fetching the rest.

All of the network goes through huggingface_hub, which keeps partial files and continues them, and
which reads HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE. It is imported when first needed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..bundle.load import shards_of
from ..errors import HubError
from .errors import explained
from .resumable import fetch_blob

LARGE = 8 << 20  # files from here on are worth continuing; below, one request is enough
LICENCE_FILES = ("LICEN[CS]E*", "NOTICE*", "ACKNOWLEDG*")
_SETTINGS = {
    "vae": ("config.json",),
    "text_encoder": (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ),
}
# Names of the weights, the first that a repository has.
_STEMS = {"vae": ("diffusion_pytorch_model", "model"), "text_encoder": ("model",)}


@dataclass(frozen=True)
class RemoteFile:
    """A file that a model needs."""

    repository: str
    name: str
    size: int  # bytes, 0 if the hub does not say


@dataclass(frozen=True)
class DownloadPlan:
    """Told before the first byte: what will be fetched, and on what terms."""

    model: str
    files: tuple[RemoteFile, ...]  # those that are not here yet
    licence: str
    directory: Path  # where they go

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class DownloadProgress:
    """Bytes of one file; what an earlier, broken download left counts as done."""

    file: RemoteFile
    done: int
    total: int


Tell = Callable[[Any], None]


def cached_checkpoint(repository: str, name: str) -> Path | None:
    """The checkpoint in the hub's cache if it is complete there. Never asks the network."""
    return _cached(repository, name)


def cached_component(repository: str, kind: str) -> Path | None:
    """Directory of a complete VAE or text encoder in the hub's cache. Never asks the network."""
    config = _cached(repository, "config.json")
    if config is None:
        return None
    directory = config.parent
    if kind == "text_encoder" and not (directory / "tokenizer.json").is_file():
        return None
    for stem in _STEMS[kind]:
        index = directory / f"{stem}.safetensors.index.json"
        names = _shards(index) if index.is_file() else [f"{stem}.safetensors"]
        if names and all((directory / name).is_file() for name in names):
            return directory
    return None


def checkpoint_files(repository: str, name: str) -> list[RemoteFile]:
    """A checkpoint and the licence files beside it, with sizes. Errors: HubError."""
    listing = list_repository(repository)
    if name not in listing:
        raise HubError(
            f"{repository} has no file {name}. It has: {_some(listing)}. "
            "Was it renamed? Download it by hand and use: mlx-starflow convert FILE --output DIR"
        )
    licences = [f for f in listing if any(fnmatchcase(f.upper(), p) for p in LICENCE_FILES)]
    return [RemoteFile(repository, f, listing[f]) for f in (name, *licences)]


def component_files(repository: str, kind: str) -> list[RemoteFile]:
    """What a VAE or text encoder is made of, with sizes; safetensors only. Errors: HubError for a
    repository that lacks a part, such as a shard that its index names."""
    listing = list_repository(repository)
    wanted = [name for name in _SETTINGS[kind] if name in listing]
    needed = ["config.json"] + (["tokenizer.json"] if kind == "text_encoder" else [])
    for name in needed:
        if name not in listing:
            raise HubError(f"{repository} has no {name}, so it is no {_called(kind)}.")
    for stem in _STEMS[kind]:
        index = f"{stem}.safetensors.index.json"
        if index in listing:
            shards = _shards(fetch(RemoteFile(repository, index, listing[index])))
            missing = [name for name in shards if name not in listing]
            if missing or not shards:
                raise HubError(
                    f"{repository} is incomplete: {index} names the shard "
                    f"{missing[0] if missing else '(none)'}, which the repository does not have. "
                    "Tell its owner, or use another copy."
                )
            wanted += [index, *shards]
            break
        if f"{stem}.safetensors" in listing:
            wanted.append(f"{stem}.safetensors")
            break
    else:
        raise HubError(
            f"{repository} has no safetensors weights, which a {_called(kind)} needs. "
            f"It has: {_some(listing)}."
        )
    return [RemoteFile(repository, name, listing[name]) for name in wanted]


def list_repository(repository: str) -> dict[str, int]:
    """File names and sizes of a repository: one request. Errors: HubError."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository, files_metadata=True)
    except Exception as error:
        raise explained(error, repository) from error
    return {file.rfilename: file.size or 0 for file in info.siblings or ()}


def fetch(file: RemoteFile, tell: Tell | None = None) -> Path:
    """Path of one file in the hub's cache, fetched or continued where it is not complete.

    Errors: HubError; what has arrived stays, and the next call continues it.
    """
    from huggingface_hub import hf_hub_download

    def arrived(done: int, total: int) -> None:
        if tell is not None:
            tell(DownloadProgress(file, done, total))

    try:
        if file.size >= LARGE or not file.size:
            fetch_blob(file.repository, file.name, arrived)
        path = Path(hf_hub_download(file.repository, file.name, tqdm_class=_Silent))
    except Exception as error:
        raise explained(error, file.repository, file.name) from error
    arrived(path.stat().st_size, path.stat().st_size)
    return path


def missing_files(files: list[RemoteFile]) -> list[RemoteFile]:
    """Those that the hub's cache does not have yet."""
    return [file for file in files if _cached(file.repository, file.name) is None]


def hub_cache() -> Path:
    """Where huggingface_hub keeps its files."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def check_space(directory: Path, needed: int, what: str) -> None:
    """Errors: HubError when the disk of ``directory`` has less than ``needed`` bytes free."""
    place = directory
    while not place.exists() and place.parent != place:
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise HubError(
            f"{what} needs {needed / 1e9:.1f} GB in {directory}, where {free / 1e9:.1f} GB are "
            "free. Make room, or choose another disk with HF_HOME and MLX_STARFLOW_CACHE."
        )


def _cached(repository: str, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, (str, os.PathLike)) and Path(found).is_file() else None


def _shards(index: Path) -> list[str]:
    try:
        data = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return sorted(shards_of(data)) if isinstance(data, dict) else []


class _Silent:
    """The progress bar that huggingface_hub is given: none."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def update(self, *_: Any) -> None:
        pass

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return self.update


def _called(kind: str) -> str:
    return {"vae": "diffusers AutoencoderKL", "text_encoder": "transformers text encoder"}[kind]


def _some(listing: dict[str, int]) -> str:
    names = sorted(listing)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def in_cache(repositories: Iterator[str]) -> dict[str, int]:
    """Bytes that the hub's cache holds of each of these repositories."""
    from huggingface_hub import scan_cache_dir

    wanted = set(repositories)
    if not hub_cache().is_dir():
        return {}
    return {r.repo_id: r.size_on_disk for r in scan_cache_dir().repos if r.repo_id in wanted}
