"""Malicious noise files: refused by a sentence and with little memory."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import tracemalloc
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_starflow.errors import UsageError
from mlx_starflow.generation.noise_file import (
    noise_record,
    noise_settings,
    read_noise,
    recorded_noise,
    write_noise,
)

NOISE = np.random.default_rng(0).standard_normal((2, 3, 3, 4)).astype(np.float32)


def npy(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    header = header.encode() if isinstance(header, str) else header
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, noise=NOISE)
    return file.getvalue()


def tensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"
NPY = {
    "an archive": archive(),
    "empty": b"",
    "cut": saved(NOISE)[:-1],
    "too long": saved(NOISE) + b"x",
    "no literal": npy("{'descr': open('/etc/passwd')}"),
    "an unfinished literal": npy("{'descr': ("),
    "a null in the literal": npy(b"{'descr': \0}"),
    "brackets": npy("(" * 9000),
    "an indented literal": npy("  {\n 'descr"),
    "a shape that lies": npy(HEADER % "(1, 100000, 100000, 4)"),
    "a shape beyond 64 bits": npy(HEADER % "(1, 9999999999999999999999, 3, 4)"),
    "a negative shape": npy(HEADER % "(1, -3, 3, 4)"),
    "a shape of text": npy(HEADER % "('a', 3, 3)"),
    "no dimensions": npy(HEADER % "()", bytes(4)),
    "nothing in it": npy(HEADER % "(0, 3, 3, 4)"),
    "objects": npy(
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 1), }", b"cos\nsystem\n"
    ),
    "a type that is none": npy("{'descr': 'zz', 'fortran_order': False, 'shape': (1, 1, 1), }"),
    "a type of types": npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,1,1), }"),
    "a header of 4 GB": b"\x93NUMPY\x02\0\xff\xff\xff\xff" + b"{",
    "a version from the future": npy(HEADER % "(1, 1, 1)", bytes(4), version=9),
    "NaN": saved(np.full((1, 1, 1), np.nan, np.float32)),
    "1e300": saved(np.full((1, 1, 1), 1e300)),
    "whole numbers": saved(np.ones((1, 1, 1), np.int32)),
}  # fmt: skip
SAFETENSORS = {
    "empty": b"",
    "a header that lies": struct.pack("<Q", 1 << 60) + b"{}",
    "no tensors": tensors({}),
    "another kind": tensors({"noise": {"dtype": "I32", "shape": [1, 1, 1], "data_offsets": [0, 4]}},
                            bytes(4)),
    "a scalar": tensors({"noise": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, bytes(4)),
    "NaN": tensors({"noise": {"dtype": "F32", "shape": [1, 1, 1], "data_offsets": [0, 4]}},
                   b"\xff" * 4),
    "two tensors": tensors(
        {n: {"dtype": "F32", "shape": [1, 1, 1], "data_offsets": [i * 4, i * 4 + 4]}
         for i, n in enumerate("ab")}, bytes(8),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [f"npy {n}" for n in NPY] + [f"safetensors {n}" for n in SAFETENSORS]
)
def test_it_is_refused(name, tmp_path):
    suffix, _, case = name.partition(" ")
    path = tmp_path / f"a.{suffix}"
    path.write_bytes((NPY if suffix == "npy" else SAFETENSORS)[case])
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=r"a\.") as caught:
            read_noise(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 500


def test_honest_files_come_through(tmp_path):
    np.save(tmp_path / "a.npy", NOISE)
    np.save(tmp_path / "b.npy", np.asfortranarray(NOISE).astype(">f8"))
    for name in ("a.npy", "b.npy"):
        assert np.array_equal(read_noise(tmp_path / name), NOISE)
    np.save(tmp_path / "c.npy", NOISE[0])
    assert np.array_equal(read_noise(tmp_path / "c.npy"), NOISE[:1])
    path = write_noise(tmp_path / "d.safetensors", {"prompt": "a"}, noise=mx.array(NOISE))
    assert np.array_equal(read_noise(path), NOISE) and noise_settings(path) == {"prompt": "a"}
    half = mx.array(NOISE).astype(mx.bfloat16)
    mx.save_safetensors(str(tmp_path / "e.safetensors"), {"noise": half})
    assert np.array_equal(read_noise(tmp_path / "e.safetensors"), np.array(half.astype(mx.float32)))
    assert noise_settings(tmp_path / "e.safetensors") == {}


@pytest.mark.parametrize(
    "about", ["[", "[1]", "3", '{"a": NaN}', "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_settings_in_a_noise_file(about, tmp_path):
    path = tmp_path / "a.safetensors"
    mx.save_safetensors(str(path), {"noise": mx.array(NOISE)}, {"mlx-starflow": about})
    with pytest.raises(UsageError, match="cannot be read"):
        noise_settings(path)


def test_pipes_are_not_waited_for(tmp_path):
    for suffix in (".npy", ".safetensors"):
        os.mkfifo(tmp_path / f"a{suffix}")
        with pytest.raises(UsageError, match="named pipe"):
            read_noise(tmp_path / f"a{suffix}")


def changed(**changes) -> dict:
    return {**noise_record("a.npy", NOISE), **changes}


RECORDS = {
    "no object": [1],
    "a shape that lies": changed(shape=[2, 3, 3, 5]),
    "an enormous shape": changed(shape=[1 << 50, 1 << 50, 1, 1]),
    "a negative shape": changed(shape=[-1, 3, 3, 4]),
    "a shape of text": changed(shape="2334"),
    "no shape": changed(shape=None),
    "two dimensions": changed(shape=[18, 4]),
    "no base64": changed(data="***"),
    "data of another kind": changed(data=[1, 2]),
    "data that is NaN": changed(
        shape=[1, 1, 1], data=base64.b64encode(b"\xff" * 4).decode()
    ),
    "no file": changed(data=None, file=None),
    "a file of another kind": changed(data=None, file=3),
    "a file with a zero byte": changed(data=None, file="a\0.npy"),
    "a file that is a device": changed(data=None, file="/dev/zero"),
    "a file that is missing": changed(data=None, file="/nowhere/a.npy"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_a_stored_noise_is_refused(name):
    with pytest.raises(UsageError):
        recorded_noise(RECORDS[name], "fox.png")


def test_a_stored_noise_comes_back(tmp_path):
    assert np.array_equal(recorded_noise(noise_record("x", NOISE), "fox.png"), NOISE)
    path: Path = tmp_path / "a.npy"
    np.save(path, NOISE)
    record = noise_record(str(path), NOISE) | {"data": None}
    assert np.array_equal(recorded_noise(record, "fox.png"), NOISE)
    np.save(path, NOISE + 1)
    with pytest.raises(UsageError, match="has changed since"):
        recorded_noise(record, "fox.png")
