"""Opening a checkpoint of any supported format, as one dictionary of tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_starflow.bundle.safetensors import read_header
from mlx_starflow.errors import CheckpointError, WeightsError
from mlx_starflow.files.json import read_json
from mlx_starflow.files.regular import is_regular

from .tensor_file import SourceTensor, TensorFile
from .torch_zip import read_torch_zip
from .unwrap import state_dict_of

MAX_INDEX_BYTES = 64 << 20
# In a directory, the first of these that exists is used.
_INDEXES = (
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
_SINGLES = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
)
_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint of one or more files."""

    path: Path
    tensors: dict[str, SourceTensor]  # by name, without wrappers
    files: tuple[TensorFile, ...]
    notes: tuple[str, ...] = ()  # what was unwrapped or ignored, for the user

    @property
    def nbytes(self) -> int:
        """Total size of the files."""
        return sum(f.size for f in self.files)

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


def open_checkpoint(path: Path, weights_key: str | None = None) -> Checkpoint:
    """Open a .pth, .bin or .safetensors file, an index of shards, or a directory of these.

    Reads only the tables of contents, and runs no code in the files. ``weights_key``: which
    weights, if there are several sets. Errors: CheckpointError.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist.")
    if path.is_dir():
        path = _file_in(path)
    if path.name.endswith(".index.json"):
        paths = _shards(path)
    elif is_regular(path):
        paths = [path]
    else:
        raise CheckpointError(f"{path} is neither a file nor a directory.")
    files: list[TensorFile] = []
    tensors: dict[str, SourceTensor] = {}
    notes: list[str] = []
    try:
        for part in paths:
            files.append(TensorFile(part))
            found, said = _read(files[-1], weights_key)
            notes += said
            for name, tensor in found.items():
                if name in tensors:
                    other = tensors[name].file.path.name
                    raise CheckpointError(f"{path}: {name!r} is both in {other} and {part.name}.")
                tensors[name] = tensor
    except BaseException:
        for file in files:
            file.close()
        raise
    return Checkpoint(path, tensors, tuple(files), tuple(notes))


def _file_in(directory: Path) -> Path:
    for name in (*_INDEXES, *_SINGLES):
        if is_regular(directory / name):
            return directory / name
    found = sorted(p for p in directory.iterdir() if p.suffix in _SUFFIXES and is_regular(p))
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(
            f"{directory} has no weights: expected one of {', '.join(_SINGLES)}, or a single file "
            f"ending in {', '.join(_SUFFIXES)}."
        )
    names = ", ".join(p.name for p in found[:10])
    raise CheckpointError(f"{directory} has several checkpoints ({names}). Give one of them.")


def _shards(index: Path) -> list[Path]:
    """The files in an index of shards, which must be in the same directory."""
    data = read_json(index, MAX_INDEX_BYTES, CheckpointError)
    names = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(names, dict):
        raise CheckpointError(f"{index} is not an index of shards (it has no weight_map).")
    return [_beside(index, name) for name in _unique(names.values(), index)]


def _unique(names: Iterable[Any], index: Path) -> list[str]:
    names = list(names)
    if not all(isinstance(name, str) for name in names) or not names:
        raise CheckpointError(f"{index}: its weight_map does not name files.")
    return sorted(set(names))


def _beside(index: Path, name: str) -> Path:
    if "/" in name or "\\" in name or name.startswith("."):
        raise CheckpointError(f"{index}: the shard {name[:200]!r} is outside its directory.")
    path = index.parent / name
    if not is_regular(path):
        raise CheckpointError(
            f"{index}: the shard {name} is missing beside it. Download the missing file."
        )
    return path


def _read(file: TensorFile, key: str | None) -> tuple[dict[str, SourceTensor], list[str]]:
    start = file.read(0, min(64, file.size))
    if start.startswith(b"PK\x03\x04"):
        return state_dict_of(read_torch_zip(file), str(file.path), key)
    if len(start) >= 9 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] < 1 << 40:
        try:
            tensors = {
                t.name: SourceTensor(t.name, t.dtype, t.shape, file, t.begin, t.end)
                for t in read_header(file.path)
            }
        except WeightsError as error:
            raise CheckpointError(str(error)) from None
        return state_dict_of(tensors, str(file.path), key)
    raise CheckpointError(f"{file.path} {_explain(start, file)}")


def _explain(start: bytes, file: TensorFile) -> str:
    """Why a file cannot be read, from its first bytes, and what to do."""
    resave = (
        "Convert it once with PyTorch: torch.save(torch.load(path, weights_only=True, "
        "map_location='cpu'), 'new.pth')."
    )
    if start.startswith(b"\x80") and b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19" in start[:16]:
        return f"is in the format of PyTorch before 1.6, a single pickle. {resave}"
    if start.startswith(b"\x80"):
        return f"is a bare pickle, not a checkpoint of torch.save. {resave}"
    if file.size > 262 and file.read(257, 262) == b"ustar":
        return f"is a tar archive, as PyTorch wrote before 2017. {resave}"
    if start.startswith(b"version https://git-lfs"):
        return (
            "is a Git LFS pointer, not the file itself. Run `git lfs pull`, or download the file."
        )
    if start.lstrip()[:1] == b"<":
        return "is a web page, not a checkpoint. Download the file again."
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")):
        return "is a compressed archive. Unpack it first."
    if not any(start):
        return "begins with zeros, as an incomplete download does. Download it again."
    return (
        "is neither a checkpoint of torch.save (a zip archive) nor a safetensors file. "
        "Check the path, or download it again."
    )
