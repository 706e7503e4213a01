"""Files of hub repositories: which are needed, which are in the cache, and downloading the others.

All network access goes through huggingface_hub, which reads HF_HOME, HF_TOKEN, HF_ENDPOINT and
HF_HUB_OFFLINE, and which is imported when first needed. The answers of the hub are checked: file
names must stay inside the cache, and sizes and hashes must be those that were announced.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..bundle.load import MAX_INDEX_BYTES, shards_of
from ..errors import ConfigError, HubError
from ..files.fields import Fields, shown
from ..files.json import read_json
from ..files.regular import is_regular
from ..files.visible import visible
from .errors import explained
from .integrity import blob_is_whole
from .requests import get_listing
from .resumable import fetch_file

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
# Folders of a repository in which a component may lie: diffusers pipelines have subfolders.
_FOLDERS = {"vae": ("", "vae/"), "text_encoder": ("",)}
# Stems of the weights' file names; the first one that a repository has is used.
_STEMS = {"vae": ("diffusion_pytorch_model", "model"), "text_encoder": ("model",)}


@dataclass(frozen=True)
class RemoteFile:
    """A file that a model needs."""

    repository: str
    name: str
    size: int  # bytes, 0 if the hub does not say


@dataclass(frozen=True)
class DownloadPlan:
    """Event before a download: which files will be downloaded, and their licence."""

    model: str
    files: tuple[RemoteFile, ...]  # those that are not in the cache yet
    licence: str
    directory: Path  # where they are put

    @property
    def bytes(self) -> int:
        """Total size of the files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class DownloadProgress:
    """Event during a download: progress of one file, in bytes. Bytes of an earlier, interrupted
    download count as done."""

    file: RemoteFile
    done: int
    total: int


Tell = Callable[[Any], None]  # receives the events of a download and a conversion


def cached_checkpoint(repository: str, name: str) -> Path | None:
    """The path of a checkpoint in the hub's cache if it is complete, else None. Does not use the
    network."""
    return _cached(repository, name)


def cached_component(repository: str, kind: str) -> Path | None:
    """The directory of a VAE or text encoder in the hub's cache if it is complete, else None. Does
    not use the network."""
    for folder in _FOLDERS[kind]:
        config = _cached(repository, f"{folder}config.json")
        if config is None:
            continue
        directory = config.parent
        if kind == "text_encoder" and _cached(repository, "tokenizer.json") is None:
            continue
        for stem in _STEMS[kind]:
            index = directory / f"{stem}.safetensors.index.json"
            names = _shards(index) if index.is_file() else [f"{stem}.safetensors"]
            if names and all(_cached(repository, folder + name) is not None for name in names):
                return directory
    return None


def checkpoint_files(repository: str, name: str) -> list[RemoteFile]:
    """A checkpoint and the licence files beside it, with sizes. Errors: HubError."""
    listing = list_repository(repository)
    if name not in listing:
        raise HubError(
            f"{repository} has no file {name}. It has: {_some(listing)}. "
            "Was it renamed? Download it yourself and use: mlx-starflow convert FILE --output DIR"
        )
    # Licences first, so that a complete checkpoint always has them beside it.
    return [RemoteFile(repository, f, listing[f]) for f in (*licences_in(listing), name)]


def licences_in(listing: dict[str, int]) -> list[str]:
    """The licence and notice files at the top level of a repository, from its listing."""
    return [f for f in listing if any(fnmatchcase(f.upper(), p) for p in LICENCE_FILES)]


def has_licence(repository: str, name: str) -> bool:
    """Whether there is a licence file beside a file of a repository in the hub's cache."""
    path = _cached(repository, name)
    return path is not None and bool(licences_in({p.name: 0 for p in path.parent.iterdir()}))


def component_files(repository: str, kind: str) -> list[RemoteFile]:
    """The files of a VAE or text encoder, with sizes; weights in safetensors format only. Errors:
    HubError if a file is missing, such as a shard in the index."""
    whole = list_repository(repository)
    folder = next((f for f in _FOLDERS[kind] if f"{f}config.json" in whole), "")
    listing = {name.removeprefix(folder): n for name, n in whole.items() if name.startswith(folder)}
    wanted = [name for name in _SETTINGS[kind] if name in listing]
    needed = ["config.json"] + (["tokenizer.json"] if kind == "text_encoder" else [])
    for name in needed:
        if name not in listing:
            raise HubError(f"{repository} has no {name}, so it is not a {_called(kind)}.")
    for stem in _STEMS[kind]:
        index = f"{stem}.safetensors.index.json"
        if index in listing:
            shards = _shards(fetch(RemoteFile(repository, folder + index, listing[index])))
            missing = [name for name in shards if name not in listing]
            if missing or not shards:
                raise HubError(
                    f"{repository} is incomplete: {index} names the shard "
                    f"{missing[0] if missing else '(none)'}, which the repository does not have. "
                    "Report it to its owner, or use another copy."
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
    return [RemoteFile(repository, folder + name, listing[name]) for name in wanted]


def list_repository(repository: str) -> dict[str, int]:
    """File name -> size in bytes of all files in a repository, from one request. Errors: HubError,
    also for a file name that would lead outside the cache."""
    try:
        _check_online()
        listing = get_listing(repository)
    except Exception as error:
        raise explained(error, repository) from error
    fields = Fields(listing, f"The hub's list of the files of {repository}", HubError)
    found = {}
    for file in fields.many("siblings", ()):
        name = file.text("rfilename", most=1000)
        check_name(name, repository)
        found[name] = file.whole("size", 0)
    return found


def check_name(name: str, repository: str) -> None:
    """Raise a HubError for a file name that could lead outside its directory."""
    parts = name.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or any(c in name for c in "\\:")
        or visible(name) != name
        or "\n" in name
    ):
        raise HubError(
            f"{repository} has a file named {shown(name)}, which would be outside its directory. "
            "Nothing was downloaded from it."
        )


def fetch(file: RemoteFile, tell: Tell | None = None) -> Path:
    """Download one file, or continue its download. Returns its path in the hub's cache.

    Errors: HubError; an incomplete download is kept and continued by the next call.
    """
    check_name(file.name, file.repository)

    def arrived(done: int, total: int) -> None:
        if tell is not None:
            tell(DownloadProgress(file, done, total))

    try:
        _check_online()
        path = fetch_file(file.repository, file.name, file.size, arrived)
    except Exception as error:
        raise explained(error, file.repository, file.name) from error
    arrived(path.stat().st_size, path.stat().st_size)
    return path


def missing_files(files: list[RemoteFile]) -> list[RemoteFile]:
    """The files that are not complete in the hub's cache."""
    return [file for file in files if _cached(file.repository, file.name) is None]


def hub_cache() -> Path:
    """The cache directory of huggingface_hub."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def check_space(directory: Path, needed: int, what: str) -> None:
    """Raise a HubError if the disk of ``directory`` has less than ``needed`` bytes free. ``what``:
    the work that needs them, for the message."""
    place = directory
    while not place.exists() and place.parent != place:
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise HubError(
            f"{what} needs {needed / 1e9:.1f} GB in {directory}, but only {free / 1e9:.1f} GB are "
            "free. Free some space, or choose another disk with HF_HOME and MLX_STARFLOW_CACHE."
        )


def _cached(repository: str, name: str) -> Path | None:
    """The path of a file in the hub's cache if its content has the right hash, else None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    if not isinstance(found, (str, os.PathLike)) or not is_regular(found):
        return None
    return Path(found) if blob_is_whole(Path(found)) else None


def _check_online() -> None:
    from huggingface_hub import constants, errors

    if constants.is_offline_mode():
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")


def _shards(index: Path) -> list[str]:
    try:
        return sorted(shards_of(read_json(index, MAX_INDEX_BYTES)))
    except (OSError, ConfigError):
        return []


def _called(kind: str) -> str:
    return {"vae": "diffusers AutoencoderKL", "text_encoder": "transformers text encoder"}[kind]


def _some(listing: dict[str, int]) -> str:
    names = sorted(listing)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def in_cache(repositories: Iterable[str]) -> dict[str, int]:
    """Repository -> bytes in the hub's cache, for those of the repositories that are in it."""
    from huggingface_hub import scan_cache_dir

    wanted = set(repositories)
    if not hub_cache().is_dir():
        return {}
    return {r.repo_id: r.size_on_disk for r in scan_cache_dir().repos if r.repo_id in wanted}
