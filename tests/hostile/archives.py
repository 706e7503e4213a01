"""Malicious zip archives, safetensors files and other files, for test_hostile.py."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch_files as tf

from . import small_model

GOOD = tf.state_dict({"blocks.0.proj_in.weight": tf.tensor("0", (4, 4))})
DATA = {"0": bytes(64)}
Make = Callable[[Path], Path]


def good(path: Path) -> bytes:
    """The bytes of a valid archive."""
    return tf.archive(path, GOOD, DATA).read_bytes()


def changed(edit: Callable[[bytearray], bytes | bytearray | None]) -> Make:
    """A valid archive, changed by ``edit``."""

    def make(path: Path) -> Path:
        data = bytearray(good(path))
        result = edit(data)
        path.write_bytes(data if result is None else result)
        return path

    return make


def end_record(data: bytearray) -> int:
    return data.rindex(b"PK\x05\x06")


def central(data: bytearray, name: bytes) -> int:
    """Where the central record of an entry begins."""
    return data.rindex(name) - 46


def put(layout: str, where: Callable[[bytearray], int], value: int) -> Make:
    return changed(lambda data: struct.pack_into(layout, data, where(data), value))


def renamed(old: bytes, new: bytes) -> Make:
    return changed(lambda data: data.replace(old, new))


def zipped(*entries: tuple[str, bytes, int]) -> Make:
    def make(path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as file:
            for name, data, method in entries:
                file.writestr(name, data, method)
        return path

    return make


def duplicate(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in ("a/data.pkl", "a/data/0", "a/data/1"):
            file.writestr(name, GOOD if name.endswith("pkl") else bytes(64))
    data = path.read_bytes().replace(b"a/data/1", b"a/data/0")
    path.write_bytes(data)
    return path


def overlapping(path: Path) -> Path:
    """Two entries over the same bytes: a local header hides in the data of the first."""
    inner = tf.archive(path, GOOD, {"1": bytes(8)}).read_bytes()
    start = inner.index(b"PK\x03\x04", 4)
    header = inner[inner.rindex(b"PK\x03\x04", 0, inner.index(b"archive/data/1")) :][:60]
    data = bytearray(tf.archive(path, GOOD, {"0": header + bytes(64), "1": bytes(8)}).read_bytes())
    hidden = data.index(header[:44], data.index(b"archive/data/0"))
    struct.pack_into("<I", data, central(data, b"archive/data/1") + 42, hidden)
    path.write_bytes(data)
    return path if start else path


def bomb(path: Path) -> Path:
    """A quarter of a gigabyte of zeros in a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("archive/data.pkl", GOOD, zipfile.ZIP_STORED)
        with file.open("archive/data/0", "w", force_zip64=True) as stream:
            for _ in range(64):
                stream.write(bytes(1 << 22))
    return path


def zip64_lie(data: bytearray) -> bytes:
    """A Zip64 record that claims 2^60 entries."""
    end = end_record(data)
    record = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, *[1 << 60] * 4)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, end, 1)
    return bytes(data[:end]) + record + locator + bytes(data[end:])


ARCHIVES: dict[str, tuple[Make, str]] = {
    "cut in the directory": (changed(lambda d: d[: end_record(d) - 40]), "truncated"),
    "cut in the end record": (changed(lambda d: d[:-9]), "truncated"),
    "cut in the data": (changed(lambda d: d[:200]), "truncated"),
    "cut after four bytes": (changed(lambda d: d[:4]), "truncated"),
    "followed by other bytes": (changed(lambda d: bytes(d) + b"x" * 40), "bytes follow"),
    "entry count too high": (put("<H", lambda d: end_record(d) + 10, 9000), "cut off|damaged"),
    "directory beyond the file": (
        put("<I", lambda d: end_record(d) + 16, 0x7FFFFFFF), "outside the file"
    ),
    "directory length of 4 GB": (
        put("<I", lambda d: end_record(d) + 12, 0xFFFFFFFE), "claims|outside"
    ),
    "Zip64 record missing": (put("<I", lambda d: end_record(d) + 16, 0xFFFFFFFF), "Zip64"),
    "Zip64 record of 2^60 entries": (changed(zip64_lie), "claims"),
    "part of a multi-part archive": (put("<H", lambda d: end_record(d) + 4, 3), "multi-part"),
    "entry size too large": (
        put("<I", lambda d: central(d, b"archive/data/0") + 20, 1 << 30), "beyond the archive"
    ),
    "entry that begins elsewhere": (
        put("<I", lambda d: central(d, b"archive/data/0") + 42, 5), "does not begin"
    ),
    "entry that begins beyond": (
        put("<I", lambda d: central(d, b"archive/data/0") + 42, 0x7FFFFFFF), "cut off"
    ),
    "entry that is encrypted": (
        put("<H", lambda d: central(d, b"archive/data/0") + 8, 1), "encrypted"
    ),
    "local header of another name": (
        changed(lambda d: bytes(d).replace(b"archive/data/0", b"archive/data/7", 1)), "contradicts"
    ),
    "two entries of one name": (duplicate, "two entries"),
    "entries that overlap": (overlapping, "overlap"),
    "name with ..": (renamed(b"archive/data/0", b"a/../../../xyz"), "outside the archive"),
    "absolute name": (renamed(b"archive/data/0", b"/etc/passwd/00"), "outside the archive"),
    "name of Windows": (renamed(b"archive/data/0", b"C:\\windows\\abc"), "outside the archive"),
    "name with a zero byte": (renamed(b"archive/data/0", b"archive/d\0ta/0"), "outside"),
    "name that is not UTF-8": (renamed(b"archive/data/0", b"archive/da\xff\xfe/0"), "UTF-8"),
    "compressed bomb": (bomb, "compressed"),
    "compressed pickle": (
        zipped(("a/data.pkl", GOOD * 500, zipfile.ZIP_DEFLATED), ("a/data/0", bytes(64), 0)),
        "compressed",
    ),
    "two pickles": (
        zipped(("a/data.pkl", GOOD, 0), ("b/data.pkl", GOOD, 0), ("a/data/0", bytes(64), 0)),
        "expected one entry",
    ),
    "a zip of something else": (zipped(("readme.txt", b"hello", 0)), "expected one entry"),
    "TorchScript": (
        zipped(("a/data.pkl", GOOD, 0), ("a/constants.pkl", b".", 0), ("a/code/x.py", b"", 0)),
        "TorchScript",
    ),
    "unknown byte order": (
        zipped(("a/data.pkl", GOOD, 0), ("a/byteorder", b"middle", 0), ("a/data/0", bytes(64), 0)),
        "byte order",
    ),
}  # fmt: skip


def content(data: bytes, name: str | None = None) -> Make:
    def make(path: Path) -> Path:
        path = path if name is None else path.with_name(name)
        path.write_bytes(data)
        return path

    return make


def safetensors(header: object, data: bytes = bytes(64), length: int | None = None) -> Make:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = struct.pack("<Q", len(text) if length is None else length)
    return content(size + text + data, "model.safetensors")


def tensor_entry(dtype: object = "F32", shape: object = (4, 4), offsets: object = (0, 64)) -> dict:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def index(weight_map: object, *shards: str) -> Make:
    def make(path: Path) -> Path:
        for shard in shards:
            safetensors(tensor_entry())(path.with_name(shard))
        result = path.with_name("model.safetensors.index.json")
        result.write_text(json.dumps({"weight_map": weight_map}))
        return result

    return make


def tar(path: Path) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
        file.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return path


OTHERS: dict[str, tuple[Make, str]] = {
    "empty file": (content(b""), "is empty"),
    "one byte": (content(b"P"), "neither"),
    "zeros": (content(bytes(4096)), "zeros"),
    "PyTorch before 1.6": (
        content(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."), "before 1.6"
    ),
    "bare pickle": (content(b"\x80\x04cos\nsystem\n."), "bare pickle"),
    "tar": (tar, "tar archive"),
    "gzip": (content(gzip.compress(b"x" * 1000)), "compressed archive"),
    "web page": (content(b"<!DOCTYPE html><html>404</html>"), "web page"),
    "Git LFS pointer": (
        content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS"
    ),
    "safetensors header longer than the file": (
        safetensors(tensor_entry(), length=1 << 39), "claims"
    ),
    "safetensors header that is not JSON": (safetensors(b"{'w': 1}"), "not JSON"),
    "safetensors header nested too deep": (
        safetensors(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "not JSON"
    ),
    "safetensors without a shape": (safetensors({"w": {"dtype": "F32"}}), "malformed"),
    "safetensors with an entry of text": (safetensors({"w": "F32"}), "malformed"),
    "safetensors of negative shape": (
        safetensors(tensor_entry(shape=(-4, -4))), "no valid shape"
    ),
    "safetensors with a shape of text": (safetensors(tensor_entry(shape="44")), "no valid shape"),
    "safetensors of an unknown type": (safetensors(tensor_entry("C64")), "unsupported type"),
    "safetensors of a type that is a list": (safetensors(tensor_entry(["F32"])), "unsupported"),
    "safetensors whose shape lies": (safetensors(tensor_entry(shape=(1 << 40, 4))), "needs"),
    "safetensors that ends early": (safetensors(tensor_entry(), bytes(60)), "truncated"),
    "safetensors whose tensors overlap": (
        safetensors(tensor_entry() | {"x": tensor_entry(offsets=(32, 96))["w"]}, bytes(96)),
        "overlap",
    ),
    "shard outside the directory": (index({"w": "../../etc/passwd"}), "outside its directory"),
    "shard that is missing": (index({"w": "model-00001-of-00002.safetensors"}), "missing beside"),
    "index of numbers": (index({"w": 3}), "does not name files"),
    "index that is a list": (index([1, 2]), "not an index"),
    "one tensor in two shards": (
        index({"w": "a.safetensors", "x": "b.safetensors"}, "a.safetensors"), "missing beside"
    ),
}  # fmt: skip


def weights(change: Callable[[dict[str, np.ndarray]], None]) -> Make:
    """A valid model with some changed weights."""

    def make(path: Path) -> Path:
        arrays = small_model.arrays()
        change(arrays)
        return tf.save(path.with_name(small_model.FILE_NAME), arrays)

    return make


def poison(name: str, value: float, kind: type = np.float32) -> Make:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = arrays[name].astype(kind)
        arrays[name].reshape(-1)[-1] = value

    return weights(change)


_MATRIX = "blocks.0.attn_blocks.0.mlp.main.0.weight"
WEIGHTS: dict[str, tuple[Make, str]] = {
    "NaN in a matrix": (poison(_MATRIX, np.nan), "main.0.weight.*NaN or infinity"),
    "infinity in a matrix": (poison(_MATRIX, np.inf), "main.0.weight.*NaN or infinity"),
    "infinity in a bias": (poison("blocks.0.proj_out.bias", -np.inf), "proj_out.bias.*infinity"),
    "NaN in float16": (poison(_MATRIX, np.nan, np.float16), "main.0.weight.*NaN or infinity"),
    "infinity in float64": (poison("var", np.inf, np.float64), "var.*NaN or infinity"),
    "a float64 that float32 cannot hold": (
        poison("var", 1e300, np.float64), "var.*NaN or infinity"
    ),
    "a matrix of integers": (poison(_MATRIX, 1, np.int64), "main.0.weight.*floating-point"),
    "a tensor too many": (
        weights(lambda a: a.update({"blocks.0.extra": np.ones(3, np.float32)})),
        "blocks.0.extra.*does not belong",
    ),
    "a tensor too few": (
        weights(lambda a: a.pop("blocks.0.proj_in.bias")), "proj_in.bias.*missing"
    ),
    "a tensor of another shape": (
        weights(lambda a: a.update({"blocks.0.proj_in.bias": np.ones(63, np.float32)})),
        "proj_in.bias.*shape",
    ),
    "layers with a gap": (
        weights(lambda a: a.update({"blocks.0.attn_blocks.5.mlp.norm.bias": np.ones(1)})),
        "layer 1",
    ),
    "a block with an enormous number": (
        weights(lambda a: a.update({"blocks.9999.proj_in.bias": np.ones(1, np.float32)})),
        "block 1 has no tensors",
    ),
    "a class table of the wrong shape": (
        weights(lambda a: a.update({"blocks.0.class_embed": np.ones((3, 64), np.float32)})),
        "class_embed.*dimensions",
    ),
    "a position table that is no square": (
        weights(lambda a: a.update({"blocks.0.pos_embed": np.ones((5, 64), np.float32)})),
        "expected a square number",
    ),
}  # fmt: skip
