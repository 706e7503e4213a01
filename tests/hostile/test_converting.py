"""Malicious or damaged checkpoints, text encoders and VAEs: refused in little time and memory, and
nothing is read or written that does not belong to them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch_files as tf
from conftest import case_dir
from converting import convert, small

from convert.bundle import convert_checkpoint, convert_steps
from convert.options import ConvertOptions
from convert.read import tensor_file
from convert.read.published_yaml import read_settings
from convert.read.sources import open_checkpoint
from mlx_starflow.errors import CheckpointError, ConfigError, StarflowError, UsageError

from . import small_model
from .pickles import DICT, HEAD, call, entry, laughs

ROOT = Path(__file__).parents[2]
GOOD = tf.state_dict({"w": tf.tensor("0", (4, 4))})


def refused(function, seconds: float = 5, megabytes: float = 100) -> str:
    """The message of a refusal that came in time and without much memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(StarflowError) as caught:
            function()
        assert time.monotonic() - began < seconds
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()
    assert 0 < len(str(caught.value)) < 2000
    return str(caught.value)


# Damage


def test_a_wrong_checksum_is_noticed(tmp_path):
    path = small(tmp_path)
    with zipfile.ZipFile(path) as archive:
        name = max(archive.infolist(), key=lambda i: i.file_size).filename
        content = archive.read(name)
    data = bytearray(path.read_bytes())
    at = data.index(content)
    data[at : at + 16] = bytes(16)
    path.write_bytes(data)
    said = refused(lambda: convert_checkpoint(ConvertOptions(path, tmp_path / "out")), 30, 300)
    assert "checksum" in said and name in said
    assert not (tmp_path / "out").exists()


def test_a_checksum_that_was_never_computed_is_none(tmp_path):
    """torch.save can be told to leave it out; it is 0 then."""
    path = small(tmp_path)
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 16 : at + 20] = bytes(4)
        at += 4
    path.write_bytes(data)
    convert_checkpoint(ConvertOptions(path, tmp_path / "out"))


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path, monkeypatch):
    """A mapped file would kill the process (SIGBUS)."""
    monkeypatch.setattr(tensor_file, "PIECE_BYTES", 1 << 12)
    path = tf.save(tmp_path / small_model.FILE_NAME, small_model.arrays())
    steps = convert_steps(ConvertOptions(path, tmp_path / "out"))
    next(steps)
    os.truncate(path, 1000)
    with pytest.raises(CheckpointError, match="shorter|changed"):
        list(steps)
    assert not (tmp_path / "out").exists()


def test_a_blob_of_the_cache_has_the_hash_it_is_named_by(tmp_path):
    blob = tmp_path / "models--a--b" / "blobs" / ("0" * 64)
    link = tmp_path / "models--a--b" / "snapshots" / ("1" * 40) / small_model.FILE_NAME
    blob.parent.mkdir(parents=True)
    link.parent.mkdir(parents=True)
    shutil.move(small(tmp_path), blob)
    link.symlink_to(os.path.relpath(blob, link.parent))
    options = ConvertOptions(link, tmp_path / "out")
    assert "SHA-256" in refused(lambda: convert_checkpoint(options), 30, 300)


# Files that the model must not choose


def secret(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "secret"
    path.parent.mkdir()
    path.write_text('{"secret": 1}')
    return path


@pytest.mark.parametrize("name", ["LICENSE", "notice.txt"])
def test_a_licence_that_is_a_link_elsewhere(name, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = small(folder)
    (folder / name).symlink_to(secret(tmp_path))
    with pytest.raises(CheckpointError, match="leads outside its directory"):
        convert_checkpoint(ConvertOptions(path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    (folder / name).unlink()
    (folder / "terms").write_text("terms")
    (folder / name).symlink_to("terms")
    convert_checkpoint(ConvertOptions(path, tmp_path / "out"))
    assert (tmp_path / "out" / name).read_text() == "terms"


def test_a_tokenizer_file_that_is_a_link_elsewhere(tmp_path):
    folder = shutil.copytree(case_dir("t5_tiny"), tmp_path / "t5")
    (folder / "added_tokens.json").symlink_to(secret(tmp_path))
    with pytest.raises(CheckpointError, match=r"added_tokens\.json.*leads outside its directory"):
        convert(tmp_path / "out", text_encoder=str(folder))
    assert not (tmp_path / "out").exists()


def test_pipes_beside_a_checkpoint(tmp_path):
    path = small(tmp_path)
    for name in ("LICENSE", "a.yaml", "model.safetensors.index.json"):
        os.mkfifo(tmp_path / name)
    convert_checkpoint(ConvertOptions(path, tmp_path / "out"))
    pipe = tmp_path / "b.pth"
    os.mkfifo(pipe)
    assert "neither" in refused(lambda: open_checkpoint(pipe))
    assert "pipe" in refused(lambda: read_settings(tmp_path / "a.yaml"))
    folder = shutil.copytree(case_dir("vae_tiny"), tmp_path / "vae")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert "pipe" in refused(lambda: convert(tmp_path / "other", vae=str(folder)))


# What --overwrite replaces


@pytest.mark.parametrize(
    "name", ["thesis.txt", "flow/notes.md", "data/x", "flow/deep/x", "text_encoder/x.safetensors"]
)
def test_overwrite_leaves_foreign_files_alone(name, tmp_path):
    path, target = small(tmp_path), tmp_path / "out"
    convert_checkpoint(ConvertOptions(path, target))
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    (target / name).write_text("precious")
    with pytest.raises(UsageError, match="does not replace it") as caught:
        convert_checkpoint(ConvertOptions(path, target, overwrite=True))
    assert name.split("/")[0] in str(caught.value)
    assert (target / name).read_text() == "precious"


def test_overwrite_replaces_all_that_a_conversion_writes(tmp_path):
    for _ in range(2):
        convert(
            tmp_path / "out",
            vae=str(case_dir("vae_tiny")),
            text_encoder=str(case_dir("t5_tiny")),
            overwrite=True,
        )


PARALLEL = """
import sys
from pathlib import Path
from convert.bundle import convert_checkpoint
from convert.options import ConvertOptions
for i in range(6):
    convert_checkpoint(ConvertOptions(Path(sys.argv[1]), Path(sys.argv[2]), overwrite=True))
"""


def test_conversions_to_one_place_at_once(tmp_path):
    path = small(tmp_path)
    command = [sys.executable, "-c", PARALLEL, str(path), str(tmp_path / "out")]
    options = dict(cwd=ROOT, stderr=subprocess.PIPE, text=True)
    running = [subprocess.Popen(command, **options) for _ in range(3)]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 3, said
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "out"])


# Pickles


def test_a_foreign_object_is_not_spelled_out(tmp_path):
    """2^60 brackets, were it written in a message."""
    storage = b"(" + tf.text("storage") + laughs() + tf.text("0") + tf.text("cpu")
    pickled = entry(call("torch._utils", "_rebuild_tensor_v2", storage + tf.number(16) + b"tQ"))
    path = tf.archive(tmp_path / "a.pth", pickled, {"0": bytes(64)})
    assert "not a supported element type" in refused(lambda: open_checkpoint(path))


def test_names_of_prefixes(tmp_path):
    names = [("module." * 580 + f"w{i}")[-4096:] for i in range(400)]
    pushed = tf.state_dict({name: tf.tensor("0", (4, 4)) for name in names})
    path = tf.archive(tmp_path / "a.pth", pushed, {"0": bytes(64)})
    assert "too long for the name" in refused(lambda: open_checkpoint(path))


def test_a_sparse_pickle_is_not_read(tmp_path):
    """Three gigabytes of nothing in the place of the pickle."""
    path = tmp_path / "a.pth"
    size = 3 << 30
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        archive.writestr("a/data.pkl", b"x" * 100)
        archive.writestr("a/data/0", bytes(64))
    data = path.read_bytes()
    # The entry's sizes and everything that follows it are moved.
    begin = data.index(b"x" * 100)
    tail = bytearray(data[begin + 100 :])
    central = tail.index(b"PK\x01\x02")
    for at in (central + 20, central + 24):
        tail[at : at + 4] = size.to_bytes(4, "little")
    second = tail.index(b"PK\x01\x02", central + 4)
    offset = int.from_bytes(tail[second + 42 : second + 46], "little") + size - 100
    tail[second + 42 : second + 46] = offset.to_bytes(4, "little")
    end = tail.rindex(b"PK\x05\x06")
    start = int.from_bytes(tail[end + 16 : end + 20], "little") + size - 100
    tail[end + 16 : end + 20] = start.to_bytes(4, "little")
    with open(path, "wb") as file:
        file.write(data[:begin])
        file.seek(begin + size)
        file.write(tail)
    assert "that of a state dict has less" in refused(lambda: open_checkpoint(path))


def test_strides_beyond_64_bits_on_an_axis_of_one(tmp_path):
    tensor = tf.tensor("0", (1, 4), count=16, strides=(1 << 61, 1))
    path = tf.archive(tmp_path / "a.pth", tf.state_dict({"w": tensor}), {"0": bytes(range(64))})
    found = open_checkpoint(path).tensors["w"]
    assert found.view().tobytes() == bytes(range(16))
    assert [p.shape for _, p in found.pieces()] == [(1, 4)]


def test_a_tensor_that_is_spread_over_gigabytes(tmp_path):
    path, count = tmp_path / "a.pth", 1 << 29
    tensor = tf.tensor("0", (2,), count=count, strides=(count - 1,))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", tf.state_dict({"w": tensor}))
        archive.writestr("a/data/0", bytes(64))
    # Without the gigabytes themselves: the tensor alone is asked.
    file = tensor_file.TensorFile(path)
    wide = tensor_file.SourceTensor("w", "F32", (2,), file, 0, 4 * count, 0, (count - 1,))
    assert "contiguous" in refused(wide.view)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2, 2), ()])
def test_big_endian_files_read_as_others(shape, tmp_path):
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    pushed = tf.state_dict({"w": tf.tensor("0", shape)})
    path = tmp_path / "a.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pushed)
        archive.writestr("a/byteorder", b"big")
        archive.writestr("a/data/0", values.astype(">f4").tobytes())
    tensor = open_checkpoint(path).tensors["w"]
    assert np.array_equal(tensor.view(), values) and tensor.view().dtype == np.float32
    assert np.array_equal(np.concatenate([p.reshape(-1) for _, p in tensor.pieces()]),
                          values.reshape(-1))  # fmt: skip


def test_a_big_endian_autoencoder_converts(tmp_path):
    folder = tmp_path / "vae"
    folder.mkdir()
    shutil.copy(case_dir("vae_tiny") / "config.json", folder)
    tensors = open_checkpoint(case_dir("vae_tiny")).tensors
    pushed, data = {}, {}
    for i, (name, tensor) in enumerate(tensors.items()):
        pushed[name] = tf.tensor(str(i), tensor.shape)
        data[f"a/data/{i}"] = tensor.view().astype(">f4").tobytes()
    with zipfile.ZipFile(folder / "diffusion_pytorch_model.bin", "w") as archive:
        archive.writestr("a/data.pkl", tf.state_dict(pushed))
        archive.writestr("a/byteorder", b"big")
        for name, content in data.items():
            archive.writestr(name, content)
    convert(tmp_path / "big", vae=str(folder))
    convert(tmp_path / "little", vae=str(case_dir("vae_tiny")))
    name = "vae/model.safetensors"
    assert (tmp_path / "big" / name).read_bytes() == (tmp_path / "little" / name).read_bytes()


def test_an_empty_dictionary_of_nothing(tmp_path):
    path = tf.archive(tmp_path / "a.pth", HEAD + DICT + b")R.", {})
    assert "no tensors" in refused(lambda: open_checkpoint(path))


# YAML


def merges() -> str:
    lines = ["a0: &a0 {k: x}"]
    lines += [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}, *a{i - 1}]}}" for i in range(1, 25)]
    return "\n".join([*lines, "arguments: [{channels: 3}]"])


YAML = {
    "a bomb of merges": merges(),
    "an alias": "arguments:\n- channels: &a 3\n- blocks: *a\n",
    "a tag": "arguments:\n- channels: !!int 3\n",
    "a date of a map": "arguments:\n- channels: !!timestamp {a: 1}\n",
    "a truth that is none": "arguments:\n- rope: !!bool maybe\n",
    "deep": "arguments: " + "[" * 300 + "]" * 300,
    "many entries": "arguments:\n" + "- a: b\n" * 9000,
    "a key of a list": "arguments:\n- ? [a]\n  : b\n",
    "digits": "arguments:\n- channels: " + "9" * 5000,
    "hexadecimal digits": "arguments:\n- channels: 0x" + "f" * 5000,
    "a number of base 60": "arguments:\n- channels: " + "1:" * 3000 + "1",
    "a number out of range": "arguments:\n- channels: 1e400",
    "half a character": "arguments:\n- channels: \"\\ud800\"",
    "a directive": "%YAML 9.9\n---\narguments: []",
    "a tab": "arguments:\n\t- channels: 3",
}  # fmt: skip


@pytest.mark.parametrize("name", YAML)
def test_a_yaml_is_refused(name, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(YAML[name])
    with pytest.raises(ConfigError, match=r"a\.yaml") as caught:
        began = time.monotonic()
        read_settings(path)
    assert time.monotonic() - began < 5 and len(str(caught.value)) < 1000


def test_an_honest_yaml_is_read_as_before(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "arguments:\n- channels: 3_0\n- rope: true\n- sos: 1\n- noise_std: 3.e-1\n- vae: ~\n"
        "- text: null\n- layers_per_block: [1, 2]\n- num_heads:\n- norm_type: 'rms_norm'\n"
        "- batch_size: 1024\n"
    )
    found = read_settings(path)
    assert (found.channels, found.rope, found.sos, found.noise_std) == (30, True, True, 0.3)
    assert found.layers_per_block == (1, 2) and found.norm_type == "rms_norm"
    assert found.vae == found.text == "" and found.num_heads is None


def test_deep_json_beside_a_checkpoint(tmp_path):
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    for case, kind in (("vae_tiny", "vae"), ("t5_tiny", "text_encoder")):
        folder = shutil.copytree(case_dir(case), tmp_path / kind)
        (folder / "config.json").write_text(deep)
        said = refused(lambda f=folder, k=kind: convert(tmp_path / "out", **{k: str(f)}))
        assert "nested" in said
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(deep)
    assert "nested" in refused(lambda: open_checkpoint(folder))
    target = tmp_path / "target"
    target.mkdir()
    (target / "config.json").write_text(deep)
    path = small(tmp_path)
    refused(lambda: convert_checkpoint(ConvertOptions(path, target, overwrite=True)))
    assert json.loads(json.dumps(str(target))) and (target / "config.json").read_text() == deep
