"""Honest files, damaged at random, through the reader: only clean refusals or clean tensors.

From the repository's root, 20,000 files from seed 0:

    PYTHONPATH=.:tests python -m hostile.fuzz 20000 0
"""

from __future__ import annotations

import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch_files as tf

from convert.read.published_yaml import read_settings
from convert.read.sources import open_checkpoint
from mlx_starflow.errors import StarflowError

from .archives import safetensors

SECONDS = 10  # for one file; an honest one takes a millisecond
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
             "pickle.find_class", "import", "exec", "socket.connect")  # fmt: skip
YAML = """arguments:
- img_size: 64
- layers_per_block: 1 1 3
- noise_std: 0.3
- text: google/flan-t5-xl
- batch_size: 1024
"""
_NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, 1 << 62]
_CODES = (
    b"\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8f\x93\x94\x95().0123abcdeghijlopqrstuQRX]}"
)
_CALLS = [tf.name("os", "system"), tf.name("builtins", "eval"), tf.name("builtins", "exec")]
_PARTS = [
    *_CALLS,
    tf.text("echo"),
    tf.tensor("0", (2, 3), count=6),
    tf.name("torch._utils", "_rebuild_tensor_v2"),
    tf.name("torch._utils", "_rebuild_parameter"),
    tf.name("torch", "FloatStorage"),
    tf.name("collections", "OrderedDict"),
    b"(" + tf.text("x") + b"tR",
    b")R",
    b"Q",
    b"b",
]


class _Ran:
    """What Python's audit events say was run while files are read."""

    on = False
    seen: list[str] = []

    @classmethod
    def hook(cls, event: str, arguments: tuple) -> None:
        if cls.on and event in FORBIDDEN:
            cls.seen.append(f"{event} {str(arguments[0])[:80]}")


sys.addaudithook(_Ran.hook)


def seeds(folder: Path) -> dict[str, bytes]:
    """Valid files of every form."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {"blocks.0.a": array, "blocks.0.b": array.astype(np.float16)}
    arrays["blocks.0.c"] = array.astype(np.int64)
    archive = tf.save(folder / "seed.pth", arrays).read_bytes()
    header = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    tensors = safetensors(header, bytes(24))(folder / "x").read_bytes()
    return {"seed.pth": archive, "model.safetensors": tensors, "model.yaml": YAML.encode()}


def damaged(data: bytes, dice: random.Random, parts: list[bytes]) -> bytes:
    """One to six random changes."""
    result = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(result) + 1)
        kind = dice.randrange(8)
        if kind == 0 and result:  # a bit
            result[at % len(result)] ^= 1 << dice.randrange(8)
        elif kind == 1 and result:  # a byte
            result[at % len(result)] = dice.randrange(256)
        elif kind == 2:  # an instruction
            result.insert(at, dice.choice(_CODES))
        elif kind == 3:  # a number where one may be expected
            layout = dice.choice(["<B", "<H", "<I", "<Q"])
            size = struct.calcsize(layout)
            value = dice.choice(_NUMBERS) & ((1 << 8 * size) - 1)
            result[at : at + size] = struct.pack(layout, value)
        elif kind == 4:  # a piece is lost
            del result[at : at + dice.randint(1, 40)]
        elif kind == 5:  # a piece comes twice
            result[at:at] = result[at : at + dice.randint(1, 60)]
        elif kind == 6:  # a piece of something else
            result[at:at] = dice.choice(parts)
        else:  # the end is lost
            del result[dice.randrange(len(result) // 2, len(result) + 1) :]
    return bytes(result)


def in_archive(pickled: bytes, path: Path) -> bytes:
    """A whole zip around a damaged pickle, so that damage gets past the zip."""
    storages = {str(i): bytes(6 * n) for i, n in enumerate((4, 2, 8))}
    return tf.archive(path, pickled, storages).read_bytes()


def read(path: Path) -> str:
    """Read a file. Returns "tensors", or the kind of refusal."""
    try:
        if path.suffix == ".yaml":
            read_settings(path)
            return "settings"
        checkpoint = open_checkpoint(path)
        for tensor in checkpoint.tensors.values():
            if tensor.count < 1 << 20:
                for _, piece in tensor.pieces():
                    piece.sum()
        checkpoint.close()
        return "tensors"
    except StarflowError as error:
        if not str(error) or len(str(error)) > 4000:
            raise AssertionError(f"a message of {len(str(error))} characters") from error
        return type(error).__name__


def fuzz(count: int, seed: int, folder: Path) -> Counter[str]:
    """Read ``count`` damaged files; what became of them. Raises AssertionError, keeping the file,
    for a crash, a hang, or anything that ran."""
    dice, honest = random.Random(seed), seeds(folder)
    pushed = {f"blocks.0.{n}": tf.tensor(str(i), (2, 3)) for i, n in enumerate("abc")}
    pickled = tf.state_dict(pushed)
    outcomes: Counter[str] = Counter()
    for name, content in honest.items():  # imports what reading needs
        (folder / name).write_bytes(content)
        read(folder / name)
    before = signal.signal(signal.SIGALRM, _too_long)
    try:
        for number in range(count):
            name = dice.choice(["pickle", "pickle", *honest])
            path = folder / ("fuzz.pth" if name == "pickle" else name)
            if name == "pickle":
                content = in_archive(damaged(pickled, dice, _PARTS), path)
            else:
                content = damaged(honest[name], dice, _PARTS)
            path.write_bytes(content)
            signal.alarm(SECONDS)
            _Ran.on = True
            try:
                outcomes[read(path)] += 1
            except BaseException as error:
                kept = Path(tempfile.gettempdir()) / f"fuzz-{seed}-{number}{path.suffix}"
                kept.write_bytes(content)
                raise AssertionError(f"{kept}: {type(error).__name__}: {error}") from error
            finally:
                _Ran.on = False
                signal.alarm(0)
            if _Ran.seen:
                raise AssertionError(f"file {number} of seed {seed} ran {_Ran.seen}")
    finally:
        signal.signal(signal.SIGALRM, before)
    return outcomes


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def main() -> None:
    count, seed = (int(a) for a in sys.argv[1:3])
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = fuzz(count, seed, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{sum(outcomes.values())} files in {time.monotonic() - began:.0f} s, peak {peak:.0f} MB")
    for name, times in outcomes.most_common():
        print(f"{times:8} {name}")


if __name__ == "__main__":
    main()
