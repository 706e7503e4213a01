"""Reading checkpoints without PyTorch: every type, every view, every wrapping."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch_files as tf
from conftest import case_dir

from convert.read.sources import open_checkpoint
from convert.read.tensor_file import TensorFile
from mlx_starflow.errors import CheckpointError

BASE = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.mark.parametrize("kind", tf.STORAGES)
def test_every_numpy_type(tmp_path, kind):
    array = (BASE % 2).astype(kind) if kind == "bool" else BASE.astype(kind)
    path = tf.save(tmp_path / "a.pth", {"w": array, "scalar": array[0, 1], "none": array[:0]})
    tensors = open_checkpoint(path).tensors
    for name, expected in (("w", array), ("scalar", array[0, 1]), ("none", array[:0])):
        view = tensors[name].view()
        assert view.dtype == expected.dtype and view.shape == expected.shape
        np.testing.assert_array_equal(view, expected)


def save_raw(path: Path, pushed: dict[str, bytes], storages: dict[str, bytes], **extra) -> Path:
    return tf.archive(path, tf.state_dict(pushed), storages, **extra)


def test_bfloat16_and_float8(tmp_path):
    numbers = np.array([1.0, -2.5, 0.15625, 3e38], np.float32)
    bf16 = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    pushed = {"w": tf.tensor("0", (4,), "BFloat16Storage"), "f8": float8("1", (256,))}
    path = save_raw(tmp_path / "a.pth", pushed, {"0": bf16.tobytes(), "1": bytes(range(256))})
    tensors = open_checkpoint(path).tensors
    assert tensors["w"].dtype == "BF16" and tensors["f8"].dtype == "F8_E4M3"
    np.testing.assert_array_equal(tensors["w"].view(), bf16)
    np.testing.assert_array_equal(tensors["f8"].view(), np.arange(256))


def float8(key: str, shape: tuple[int, ...]) -> bytes:
    """How newer files write types that have no storage class of their own."""
    storage = [b"((", tf.text("storage"), tf.name("torch.storage", "UntypedStorage")]
    storage += [tf.text(key), tf.text("cpu"), tf.number(int(np.prod(shape))), b"tQ"]
    sizes = b"(" + b"".join(map(tf.number, shape)) + b"t"
    rest = [tf.number(0), sizes, b"(" + tf.number(1) + b"t", b"\x89"]
    rest += [tf.name("collections", "OrderedDict"), b")R", tf.name("torch", "float8_e4m3fn")]
    return tf.name("torch._utils", "_rebuild_tensor_v3") + b"".join(storage + rest) + b"tR"


# name -> (shape, offset, strides, the same in numpy)
VIEWS = {
    "whole": ((4, 6), 0, (6, 1), BASE),
    "transposed": ((6, 4), 0, (1, 6), BASE.T),
    "slice of rows": ((2, 6), 6, (6, 1), BASE[1:3]),
    "slice of columns": ((4, 2), 2, (6, 1), BASE[:, 2:4]),
    "every second": ((4, 3), 0, (6, 2), BASE[:, ::2]),
    "repeated row": ((3, 6), 6, (0, 1), np.broadcast_to(BASE[1], (3, 6))),
    "permuted": ((3, 4, 2), 0, (2, 6, 1), BASE.reshape(4, 3, 2).transpose(1, 0, 2)),
    "single number": ((), 23, (), BASE[3, 5]),
    "size-one axis of any stride": ((4, 1, 6), 0, (6, 99, 1), BASE[:, None]),
}


@pytest.mark.parametrize("limit", [1, 48, 1 << 20])
@pytest.mark.parametrize("order", ["little", "big"])
def test_views_of_one_shared_storage(tmp_path, order, limit):
    pushed = {
        name: tf.tensor("0", shape, count=24, offset=offset, strides=strides)
        for name, (shape, offset, strides, _) in VIEWS.items()
    }
    path = tmp_path / "a.pth"
    data = BASE.astype("<f4" if order == "little" else ">f4").tobytes()
    save_in_order(path, pushed, data, order)
    tensors = open_checkpoint(path).tensors
    for name, (shape, _, _, expected) in VIEWS.items():
        np.testing.assert_array_equal(tensors[name].view(), expected, err_msg=name)
        pieces = list(tensors[name].pieces(limit))
        assert all(p.flags.c_contiguous and p.dtype == np.float32 for _, p in pieces)
        joined = np.concatenate([p for _, p in pieces]).reshape(shape)
        np.testing.assert_array_equal(joined, expected, err_msg=name)


def save_in_order(path: Path, pushed: dict[str, bytes], data: bytes, order: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", tf.state_dict(pushed))
        file.writestr("x/byteorder", order)
        file.writestr("x/data/0", data)


def push_dict(entries: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(tf.text(k) + v for k, v in entries.items()) + b"u"


def saved(path: Path, root: bytes) -> Path:
    return tf.archive(path, b"\x80\x02" + root + b".", {"0": bytes(64), "1": bytes(16)})


W, V = tf.tensor("0", (4, 4)), tf.tensor("1", (4,))
MODEL = push_dict({"w": W, "v": V})
# name -> (saved object, what is noted)
WRAPPED = {
    "plain": (MODEL, None),
    "module.": (push_dict({"module.w": W, "module.v": V}), None),
    "module._orig_mod.": (push_dict({"module._orig_mod.w": W, "module._orig_mod.v": V}), None),
    "_orig_mod. inside": (push_dict({"w": W, "_orig_mod.v": V}), None),
    "model": (push_dict({"model": MODEL, "step": tf.number(3)}), "'model'"),
    "state_dict": (push_dict({"state_dict": MODEL, "epoch": b"N"}), "'state_dict'"),
    "beside an optimizer": (
        push_dict({"net": MODEL, "optimizer": push_dict({"exp_avg": W})}),
        "'net'",
    ),
    "averaged beside raw": (push_dict({"model": push_dict({"x": W}), "ema": MODEL}), "'ema'"),
    "two deep": (push_dict({"ema": push_dict({"module": MODEL})}), "'ema.module'"),
    "with a number inside": (push_dict({"w": W, "v": V, "steps": tf.number(7)}), "steps"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappings_are_removed(tmp_path, name):
    root, note = WRAPPED[name]
    checkpoint = open_checkpoint(saved(tmp_path / "a.pth", root))
    assert set(checkpoint.tensors) == {"w", "v"}
    assert (note is None) == (not checkpoint.notes)
    assert note is None or note in checkpoint.notes[0]


def test_several_sets_of_weights_are_a_question(tmp_path):
    root = push_dict({"generator": MODEL, "critic": push_dict({"x": W})})
    path = saved(tmp_path / "a.pth", root)
    with pytest.raises(CheckpointError, match="'generator', 'critic'.*--weights-key"):
        open_checkpoint(path)
    assert set(open_checkpoint(path, "generator").tensors) == {"w", "v"}
    with pytest.raises(CheckpointError, match="no 'painter'"):
        open_checkpoint(path, "painter")


def test_wrappers_that_hide_the_same_name(tmp_path):
    path = saved(tmp_path / "a.pth", push_dict({"a._orig_mod.w": W, "a.w": W}))
    with pytest.raises(CheckpointError, match="same tensor without wrappers"):
        open_checkpoint(path)


def safetensors(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    header, data = {}, b""
    for name, array in arrays.items():
        begin, data = len(data), data + array.tobytes()
        offsets = [begin, len(data)]
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_safetensors_single_sharded_and_directories(tmp_path):
    single = safetensors(tmp_path / "one.safetensors", {"module.w": BASE})
    np.testing.assert_array_equal(open_checkpoint(single).tensors["w"].view(), BASE)
    folder = tmp_path / "folder"
    folder.mkdir()
    safetensors(folder / "model-1.safetensors", {"w": BASE})
    safetensors(folder / "model-2.safetensors", {"v": BASE[0]})
    index = {"weight_map": {"w": "model-1.safetensors", "v": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for path in (folder, folder / "model.safetensors.index.json"):
        checkpoint = open_checkpoint(path)
        assert set(checkpoint.tensors) == {"w", "v"} and len(checkpoint.files) == 2
    only = tmp_path / "only"
    only.mkdir()
    tf.save(only / "weights.pth", {"w": BASE})
    assert set(open_checkpoint(only).tensors) == {"w"}
    tf.save(only / "more.pth", {"w": BASE})
    with pytest.raises(CheckpointError, match="several checkpoints"):
        open_checkpoint(only)


def test_a_real_checkpoint_of_torch():
    """Written by torch.save: its pickle, alignment and extra records."""
    checkpoint = open_checkpoint(case_dir("t2i_tiny") / "checkpoint.pth")
    assert len(checkpoint.tensors) == 86
    weight = checkpoint.tensors["blocks.2.attn_blocks.0.mlp.main.0.weight"]
    assert weight.shape == (512, 128) and weight.begin % 64 == 0
    assert np.isfinite(weight.view()).all() and 0 < weight.view().std() < 1


def test_a_file_that_changes_is_noticed(tmp_path):
    path = tf.save(tmp_path / "a.pth", {"w": BASE})
    file = TensorFile(path)
    file.check_unchanged()
    with path.open("ab") as out:
        out.write(b"x")
    with pytest.raises(CheckpointError, match="was changed"):
        file.check_unchanged()


def test_there_is_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="has no weights"):
        open_checkpoint(tmp_path)
