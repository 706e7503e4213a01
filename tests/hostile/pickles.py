"""Pickles that call, build, recurse, lie or are cut off. ``CANARY`` is a path that a successful
attack creates."""

from __future__ import annotations

import pickle
import struct

import torch_files as tf

CANARY = "{canary}"  # replaced by a path when a file is written
HEAD = b"\x80\x02"
DICT = tf.name("collections", "OrderedDict")
STORAGE = b"".join(
    [b"(", tf.text("storage"), tf.name("torch", "FloatStorage"), tf.text("0"), tf.text("cpu")]
)
SHELL = f"touch {CANARY}"
PYTHON = f"open('{CANARY}', 'w')"


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    return tf.name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


def entry(value: bytes) -> bytes:
    """A state dict with one entry of these instructions."""
    return HEAD + DICT + b")R" + tf.text("blocks.0.proj_in.weight") + value + b"s."


def short_text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def stack_global(module: str, attribute: str) -> bytes:
    return short_text(module) + short_text(attribute) + b"\x93"


def laughs() -> bytes:
    """A nested tuple that is small but has 2^60 items when it is traversed."""
    body = b")q\x000"
    for i in range(60):
        body += b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) + b"0"
    return body + b"h" + bytes([60])


def laughing_dicts() -> bytes:
    """Dictionaries that hold the same dictionary twice, sixty deep."""
    body = b"}q\x000"
    for i in range(60):
        again = b"h" + bytes([i])
        body += b"}q" + bytes([i + 1])
        body += b"(" + tf.text("a") + again + tf.text("b") + again + b"u0"
    return body + b"h" + bytes([60])


class _Reduce:
    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple:
        return self.parts


def _weight(**lies: object) -> bytes:
    return entry(tf.tensor("0", **{"shape": (4, 4), **lies}))


# name -> (pickle, what the refusal says). Storage "0" of the archive holds 16 floats.
PICKLES: dict[str, tuple[bytes, str]] = {
    # Calls
    "calls os.system": (entry(call("os", "system", tf.text(SHELL))), "os.system"),
    "calls posix.system": (entry(call("posix", "system", tf.text(SHELL))), "posix.system"),
    "calls posix.system, protocol 4": (
        b"\x80\x04" + stack_global("posix", "system") + tf.text(SHELL) + b"\x85R.",
        "posix.system",
    ),
    "calls eval": (entry(call("builtins", "eval", tf.text(PYTHON))), "builtins.eval"),
    "calls exec": (entry(call("builtins", "exec", tf.text(PYTHON))), "builtins.exec"),
    "calls eval of Python 2": (entry(call("__builtin__", "eval", tf.text(PYTHON))), "__builtin__"),
    "calls __import__": (entry(call("builtins", "__import__", tf.text("antigravity"))), "__import"),
    "calls subprocess": (entry(call("subprocess", "getoutput", tf.text(SHELL))), "subprocess"),
    "calls open": (entry(call("builtins", "open", tf.text(CANARY), tf.text("w"))), "builtins.open"),
    "chains getattr": (
        entry(
            call("builtins", "getattr", tf.name("os", "path"), tf.text("os"))[:-1]
            + b"R"
            + tf.text("system")
            + b"\x86R"
        ),
        "builtins.getattr",
    ),
    "calls runpy": (entry(call("runpy", "run_path", tf.text(CANARY))), "runpy.run_path"),
    "calls operator.attrgetter": (
        entry(call("operator", "attrgetter", tf.text("system"))),
        "operator.attrgetter",
    ),
    "calls functools.partial": (
        entry(call("functools", "partial", tf.name("os", "system"), tf.text(SHELL))),
        "functools.partial",
    ),
    "calls torch's own loader": (
        entry(call("torch.storage", "_load_from_bytes", tf.text("x"))),
        "_load_from_bytes",
    ),
    "calls torch.hub": (entry(call("torch.hub", "load", tf.text("x"))), "torch.hub.load"),
    "calls a name inside an allowed one": (
        entry(call("torch._utils", "_rebuild_tensor_v2.__globals__", tf.text("os"))),
        "__globals__",
    ),
    "calls numpy's rebuilder": (
        entry(call("numpy._core.multiarray", "_reconstruct", tf.text("x"))),
        "_reconstruct",
    ),
    "calls what it built": (
        entry(DICT + b")R(tR"),
        "not a name",
    ),
    "calls in a tensor's hooks": (
        entry(
            tf.tensor("0", (4, 4))[: -len(DICT + b")RtR")]
            + call("os", "system", tf.text(SHELL))
            + b"tR"
        ),
        "os.system",
    ),
    "calls while it computes a key": (
        HEAD + DICT + b")R" + call("os", "system", tf.text(SHELL)) + b"Ns.",
        "os.system",
    ),
    "calls through a persistent id": (
        entry(call("os", "system", tf.text(SHELL)) + b"Q"),
        "os.system",
    ),
    "Python's own pickle of a call": (
        pickle.dumps(_Reduce(print, ("x",)), protocol=4),
        "builtins.print|print",
    ),
    # Builds
    "builds by NEWOBJ": (entry(tf.name("os", "_wrap_close") + b")\x81"), "NEWOBJ.*_wrap_close"),
    "builds by NEWOBJ_EX": (entry(tf.name("os", "_wrap_close") + b")}\x92"), "NEWOBJ_EX"),
    "builds by INST": (entry(b"(" + tf.text(SHELL) + b"ios\nsystem\n"), "INST"),
    "builds by OBJ": (entry(b"(" + tf.name("os", "system") + tf.text(SHELL) + b"o"), "OBJ"),
    "reads the extension registry": (entry(b"\x82\x01"), "EXT1"),
    "sets attributes of a dictionary": (
        HEAD + DICT + b")R}" + tf.text("__class__") + tf.name("os", "environ") + b"sb.",
        "sets attributes",
    ),
    "sets attributes of a name": (
        HEAD + tf.name("os", "environ") + b"}" + tf.text("a") + b"Nsb.",
        "Name",
    ),
    "sets attributes of a tensor": (
        HEAD + tf.tensor("0", (4, 4)) + b"}" + tf.text("__call__") + b"Nsb.",
        "changes a SourceTensor",
    ),
    "uses out-of-band buffers": (entry(b"\x97"), "NEXT_BUFFER"),
    "makes sets": (entry(b"\x8f"), "EMPTY_SET"),
    # Breaks the machine
    "protocol 77": (b"\x80\x4d}.", "protocol 77"),
    "takes from an empty stack": (HEAD + b"0.", "empty stack"),
    "recalls what was never stored": (HEAD + b"h\x07.", "never stored"),
    "stores under a name": (HEAD + b"}pabc\n.", "not a number"),
    "marks never set": (HEAD + b"t.", "never set"),
    "sets items of a tuple": (HEAD + b")" + tf.text("a") + b"Ns.", "changes a tuple"),
    "sets a key without a value": (HEAD + b"}(" + tf.text("a") + b"u.", "without a value"),
    "has a key of no kind": (HEAD + b"})Ns.", "as a key"),
    "has the same key twice": (HEAD + b"}(" + (tf.text("a") + b"N") * 2 + b"u.", "twice"),
    "leaves things behind": (HEAD + b"}}.", "left on its stack"),
    "is not UTF-8": (HEAD + b"X\x02\x00\x00\x00\xff\xfe.", "not UTF-8"),
    "ends nowhere": (HEAD + b"}" * 10, "cut off"),
    "claims a string of 4 GB": (HEAD + b"X\xff\xff\xff\xff.", "too long for a tensor"),
    "claims a string of 2^60 bytes": (
        HEAD + b"\x8d" + struct.pack("<Q", 1 << 60) + b".", "too long for a tensor"
    ),
    "claims a number of 2 GB": (HEAD + b"\x8b\xff\xff\xff\x7f.", "whole number"),
    "a number of 5000 digits": (HEAD + b"L" + b"9" * 5000 + b"\n.", "no end"),
    "half a million instructions": (HEAD + b"}0" * 300_000 + b"}.", "instructions"),
    "nested a hundred thousand deep": (
        HEAD + b"(" * 100_000 + b"l" * 100_000 + b".",
        "expected a state dict",
    ),
    "dictionaries sixty deep": (HEAD + laughing_dicts() + b".", "no tensors"),
    "a key of 2^60 things": (HEAD + b"}" + laughs() + b"Ns.", "as a key"),
    "2^60 things as a shape": (
        entry(tf.tensor("0", (4, 4)).replace(b"(J\x04\x00\x00\x00J\x04\x00\x00\x00t", laughs(), 1)),
        "valid shape|enormous",
    ),
    "holds itself": (HEAD + b"}q\x00" + tf.text("a") + b"h\x00s.", "no tensors"),
    # Not a state dict
    "is a list": (HEAD + b"].", "expected a state dict"),
    "is a single tensor": (HEAD + tf.tensor("0", (4, 4)) + b".", "found a tensor"),
    "is empty": (HEAD + DICT + b")R.", "no tensors"),
    "holds a name instead of a tensor": (
        HEAD + DICT + b")R(" + tf.text("a") + tf.tensor("0", (4, 4)) + tf.text("b")
        + tf.name("os", "system") + b"u.",
        "not a tensor",
    ),
    # Lies about tensors
    "storage claims more than there is": (_weight(count=1 << 40), "claims"),
    "storage of negative size": (_weight(count=-16), "malformed"),
    "storage that is missing": (entry(tf.tensor("9", (4, 4))), "missing from the archive"),
    "storage named like a path": (entry(tf.tensor("../../x", (4, 4))), "missing from the archive"),
    "storage of an unknown kind": (_weight(storage="ComplexFloatStorage"), "ComplexFloatStorage"),
    "outside object that is no storage": (entry(tf.text("x") + b"\x85Q"), "not a storage"),
    "offset beyond the storage": (_weight(offset=1), "reaches element 16"),
    "offset of 2^62": (_weight(offset=1 << 62), "enormous"),
    "negative offset": (_weight(offset=-4), "negative"),
    "stride beyond the storage": (_weight(strides=(5, 1)), "reaches element 18"),
    "negative stride": (_weight(strides=(-4, 1)), "negative"),
    "negative size": (_weight(shape=(-4, 4)), "malformed|negative"),
    "sizes whose product overflows": (
        _weight(shape=(1 << 61, 1 << 61), count=16, strides=(1, 1)), "reaches element"
    ),
    "one number as a petabyte": (
        _weight(shape=(1 << 24, 1 << 24), count=16, strides=(0, 0)), "repeats"
    ),
    "empty and enormous": (_weight(shape=(1 << 60, 0), count=16, strides=(1, 1)), "enormous"),
    "a hundred dimensions": (_weight(shape=(1,) * 100, count=16), "no valid shape"),
    "fewer strides than sizes": (_weight(strides=(1,)), "strides"),
    "shape of strings": (
        entry(
            tf.tensor("0", (4, 4)).replace(
                b"(J\x04\x00\x00\x00J\x04\x00\x00\x00t", b"(" + tf.text("a") + b"t", 1
            )
        ),
        "negative or enormous|strides",
    ),
    "parameter of something else": (
        entry(call("torch._utils", "_rebuild_parameter", tf.text("x"), b"\x89", b"N")),
        "parameter in it is malformed",
    ),
}  # fmt: skip


def with_canary(pickled: bytes, canary: str) -> bytes:
    """The pickle with the canary's path in it (string lengths are corrected)."""
    mark = CANARY.encode()
    while mark in pickled:
        at = pickled.index(mark)
        start = pickled.rindex(b"X", 0, at)
        (length,) = struct.unpack_from("<I", pickled, start + 1)
        body = pickled[start + 5 : start + 5 + length].replace(mark, canary.encode())
        rest = pickled[start + 5 + length :]
        pickled = pickled[: start + 1] + struct.pack("<I", len(body)) + body + rest
    return pickled
