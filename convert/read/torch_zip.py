"""Checkpoints written by ``torch.save`` (zip format), read without PyTorch."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from mlx_starflow.bundle.safetensors import ITEM_BYTES, MAX_DIMENSIONS
from mlx_starflow.errors import CheckpointError

from .pickle_reader import Name, StateDict, check_size, described, read_pickle
from .tensor_file import SourceTensor, TensorFile
from .zip_directory import ZipEntry, read_directory

# torch.<Kind>Storage -> element type
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "UntypedStorage": "U8",
}
# torch.<dtype>, which newer files use with untyped storages
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
# A view may repeat elements (stride 0); this limits the size of tensors with few stored bytes.
MAX_REPEATED = 1 << 24


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    count: int
    entry: ZipEntry


def read_torch_zip(file: TensorFile) -> Any:
    """The object saved in a torch zip archive: SourceTensors in dicts, lists and tuples.

    No code in the file is run. Errors: CheckpointError for TorchScript archives, other zip files,
    and pickles with anything but tensors.
    """
    entries = read_directory(file)
    pickles = [n for n in entries if n.endswith("/data.pkl") and n.count("/") == 1]
    scripts = [n for n in entries if n.endswith("/constants.pkl") or "/code/" in n]
    if scripts:
        raise CheckpointError(
            f"{file.path} is a TorchScript archive (it holds {scripts[0]!r}). Save the state dict "
            "instead: torch.save(torch.jit.load(path).state_dict(), 'checkpoint.pth')."
        )
    packed = [n for n, entry in entries.items() if entry.compressed]
    if packed:
        raise CheckpointError(
            f"{file.path}: the entry {packed[0]!r} is compressed, which torch.save never does. "
            "It was not unpacked. Save the state dict again with PyTorch."
        )
    if len(pickles) != 1:
        held = ", ".join(sorted(entries)[:3]) or "nothing"
        raise CheckpointError(
            f"{file.path} is a zip archive but not one of torch.save: expected one entry "
            f"'*/data.pkl', found {len(pickles)} (it holds {held[:200]})."
        )
    file.checksums = sorted((e.begin, e.end, e.crc, e.name) for e in entries.values() if e.crc)
    return _Reader(file, entries, pickles[0]).read()


class _Reader:
    """Reads data.pkl of an archive and checks the tensors in it."""

    def __init__(self, file: TensorFile, entries: dict[str, ZipEntry], pickle: str) -> None:
        self.file, self.entries = file, entries
        self.prefix = pickle.removesuffix("data.pkl")
        self.pickle = entries[pickle]
        self.where = f"{file.path}: {pickle}"
        self.big_endian = self.byte_order() == "big"

    def refuse(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {why}. Nothing in this file was run.")

    def byte_order(self) -> str:
        entry = self.entries.get(self.prefix + "byteorder")
        if entry is None:
            return "little"
        text = self.file.read(entry.begin, min(entry.end, entry.begin + 16))
        if text not in (b"little", b"big"):
            raise self.refuse(f"the byte order {text!r} is neither 'little' nor 'big'")
        return text.decode()

    def read(self) -> Any:
        size = self.pickle.end - self.pickle.begin
        check_size(size, self.where)
        data = self.file.read(self.pickle.begin, self.pickle.end)
        if self.pickle.crc not in (0, zlib.crc32(data)):
            raise self.refuse("its checksum is wrong, so the file is damaged; download it again")
        return read_pickle(data, self.where, self.call, self.fetch)

    # The results of calls in the pickle

    def call(self, name: Name, arguments: tuple[Any, ...]) -> Any:
        kind = str(name)
        if kind == "collections.OrderedDict":
            return self.ordered(arguments)
        if kind in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return self.tensor(arguments)
        if kind == "torch._utils._rebuild_tensor_v3":
            return self.typed_tensor(arguments)
        if kind == "torch._utils._rebuild_parameter":
            if len(arguments) != 3 or not isinstance(arguments[0], SourceTensor):
                raise self.refuse("a parameter in it is malformed")
            return arguments[0]
        if kind == "torch.Size":
            return self.sizes(arguments[0] if len(arguments) == 1 else None)
        raise self.refuse(f"it calls {kind[:200]!r}, which a state dict does not need")

    def ordered(self, arguments: tuple[Any, ...]) -> StateDict:
        if arguments not in ((), ([],)):
            raise self.refuse("an OrderedDict in it has unexpected arguments")
        return StateDict()

    def sizes(self, value: Any) -> tuple[int, ...]:
        if not isinstance(value, tuple) or len(value) > MAX_DIMENSIONS:
            raise self.refuse("a tensor in it has no valid shape")
        if any(type(n) is not int or not 0 <= n < 1 << 62 for n in value):
            raise self.refuse("a tensor in it has a negative or enormous size or stride")
        return value

    def tensor(self, arguments: tuple[Any, ...]) -> SourceTensor:
        if len(arguments) not in (4, 6, 7):
            raise self.refuse("a tensor in it is malformed")
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage):
            raise self.refuse("a tensor in it has no storage")
        return self.view(storage, storage.dtype, storage.count, offset, shape, strides)

    def typed_tensor(self, arguments: tuple[Any, ...]) -> SourceTensor:
        if len(arguments) not in (7, 8):
            raise self.refuse("a tensor in it is malformed")
        storage, offset, shape, strides = arguments[:4]
        kind = self.kind(arguments[6], _DTYPES)
        if not isinstance(storage, _Storage):
            raise self.refuse("a tensor in it has no storage")
        count = (storage.entry.end - storage.entry.begin) // ITEM_BYTES[kind]
        return self.view(storage, kind, count, offset, shape, strides)

    def view(
        self, storage: _Storage, dtype: str, count: int, offset: Any, shape: Any, strides: Any
    ) -> SourceTensor:
        shape, strides = self.sizes(shape), self.sizes(strides)
        (offset,) = self.sizes((offset,))
        if len(shape) != len(strides):
            raise self.refuse(f"a tensor of shape {shape} has {len(strides)} strides")
        total, row_major, plain = 1, [], True
        for size, stride in zip(reversed(shape), reversed(strides), strict=True):
            row_major.append(total)
            plain &= size == 1 or stride == total
            total *= size
        if total:
            last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            if last >= count:
                raise self.refuse(
                    f"a tensor of shape {shape}, strides {strides} and offset {offset} reaches "
                    f"element {last} of storage {storage.key!r}, which has {count}"
                )
            if total > max(count, MAX_REPEATED):
                raise self.refuse(
                    f"a tensor of shape {shape} repeats the {count} numbers of storage "
                    f"{storage.key!r} into {total}"
                )
        elif any(shape) and max(shape) > MAX_REPEATED:
            raise self.refuse(f"a tensor of shape {shape} is empty, but has an enormous side")
        entry = storage.entry
        layout = None if plain else strides
        return SourceTensor(
            "", dtype, shape, self.file, entry.begin, entry.end, offset, layout, self.big_endian
        )

    # The objects of persistent ids

    def fetch(self, identity: Any) -> _Storage:
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
            raise self.refuse("it refers to an outside object that is not a storage")
        _, kind, key, _, count = identity
        dtype = self.kind(kind, _STORAGES)
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise self.refuse("a storage in it is malformed")
        entry = self.entries.get(f"{self.prefix}data/{key}")
        if entry is None:
            raise self.refuse(f"storage {key[:80]!r} is missing from the archive")
        if count * ITEM_BYTES[dtype] != entry.end - entry.begin:
            raise self.refuse(
                f"storage {key[:80]!r} claims {count} numbers of type {dtype}, but the archive "
                f"has {entry.end - entry.begin} bytes for it"
            )
        return _Storage(key, dtype, count, entry)

    def kind(self, name: Any, table: dict[str, str]) -> str:
        if isinstance(name, Name):
            inner = "UntypedStorage" if str(name) == "torch.storage.UntypedStorage" else name.name
            if (name.module == "torch" or inner == "UntypedStorage") and inner in table:
                return table[inner]
        raise self.refuse(f"{described(name)} is not a supported element type")
