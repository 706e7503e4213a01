"""Measurements of the codec with damaged files and round trips."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from mlx_starflow import StarflowError, codec
from mlx_starflow.codec import file
from mlx_starflow.codec.pictures import decoded_symbols
from mlx_starflow.pipeline import Pipeline

from ..likelihood.outliers import OUTLIERS
from .rivals import psnr

ARITHMETICS = {
    "MLX's own matrix products": {"MLX_STARFLOW_OPENBLAS": "0"},
    "OpenBLAS with two threads": {"OPENBLAS_NUM_THREADS": "2"},
    "OpenBLAS for another processor": {"OPENBLAS_CORETYPE": "Nehalem"},
}


def round_trips(pipe: Pipeline, pictures: np.ndarray, step: float, say) -> dict[str, float]:
    """Count the pictures whose decoded symbols are exactly those that were coded."""
    exact = portable = 0
    for i, pixels in enumerate(pictures):
        made = codec.compress_picture(pipe, Image.fromarray(pixels), step)
        exact += np.array_equal(decoded_symbols(pipe, made.data), made.symbols)
        portable += made.portable
        if i % 50 == 49:
            say(f"{i + 1}/{len(pictures)} round trips, {exact} exact")
    return {"pictures": len(pictures), "exact": float(exact), "portable": float(portable)}


def elsewhere(pipe: Pipeline, pictures: np.ndarray, step: float) -> dict[str, dict[str, float]]:
    """Count the files that are decoded correctly by processes with other implementations of matrix
    products, see ARITHMETICS.

    "differing": the number of pictures for which such a process computes different means in the
    deep block.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs = []
        for i, pixels in enumerate(pictures):
            made = codec.compress_picture(pipe, Image.fromarray(pixels), step)
            Path(folder, f"{i:03d}.flow").write_bytes(made.data)
            inputs.append(np.array(made.tokens))
        np.save(Path(folder, "inputs.npy"), np.concatenate(inputs))
        own = _seen(pipe.directory, folder, {})
        table = {}
        for name, changes in ARITHMETICS.items():
            seen = _seen(pipe.directory, folder, changes)
            pairs = list(zip(seen, own, strict=True))
            table[name] = {
                "files": len(seen),
                "decoded": float(sum(s["decoded"] for s in seen)),
                "differing": float(sum(s["sum"] != o["sum"] for s, o in pairs)),
            }
    return table


def _seen(model: Path, folder: str, changes: dict[str, str]) -> list[dict]:
    command = [sys.executable, "-m", f"{__package__}.elsewhere", str(model), folder]
    ran = subprocess.run(
        command, env={**os.environ, **changes}, capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout)


def mutations(
    pipe: Pipeline, pictures: np.ndarray, count: int, repaired: int, say
) -> dict[str, float]:
    """Decompress ``count`` damaged files and count the outcomes.

    In the first ``repaired`` files the checksum of the file is corrected, so the decoder runs.
    """
    files = [codec.compress(pipe, Image.fromarray(p), 0.5) for p in pictures]
    rng = np.random.default_rng(3)
    found: Counter[str] = Counter()
    slowest = 0.0
    for i in range(count):
        broken = files[0]
        while broken in files:
            broken = mutated(files, rng)
            broken = with_right_check(broken) if i < repaired else broken
        began = time.perf_counter()
        try:
            codec.decompress(pipe, broken)
            found["decoded"] += 1
        except StarflowError as error:
            late = "decoded numbers" in str(error) or "cannot be read" in str(error)
            found["found by the numbers' checksum" if late else "refused before decoding"] += 1
        slowest = max(slowest, time.perf_counter() - began)
        if i % 500 == 499:
            say(f"{i + 1}/{count} damaged files: {dict(found)}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    kinds = ("refused before decoding", "found by the numbers' checksum", "decoded")
    return {
        "files": float(sum(found.values())),
        **{k: float(found[k]) for k in kinds},
        "slowest, s": slowest,
        "peak memory of the process, MB": peak,
    }


def mutated(files: list[bytes], rng: np.random.Generator) -> bytes:
    """Return a random file with one of six kinds of damage."""
    data = bytearray(files[int(rng.integers(len(files)))])
    at = int(rng.integers(len(data)))
    kind = int(rng.integers(6))
    if kind == 0:  # one bit flipped
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # one to seven bytes replaced
        for place in rng.integers(len(data), size=int(rng.integers(1, 8))):
            data[place] = int(rng.integers(256))
    elif kind == 2:  # truncated
        del data[at:]
    elif kind == 3:  # a piece removed or repeated
        length = int(rng.integers(1, 20))
        data[at:at] = data[at : at + length] if rng.random() < 0.5 else b""
        del data[at : at + (length if rng.random() < 0.5 else 0)]
    elif kind == 4:  # bytes added
        data += rng.integers(256, size=int(rng.integers(1, 40))).astype(np.uint8).tobytes()
    else:  # the end replaced by that of another file
        data[at:] = files[int(rng.integers(len(files)))][at:]
    return bytes(data)


def with_right_check(data: bytes) -> bytes:
    """Return the file with a corrected checksum, or unchanged if its header cannot be read."""
    try:
        place = file.header_end(data)
        (check,) = struct.unpack_from(">I", data, place)
        return file.with_checks(data[:place], check, data[place + 6 :])
    except (struct.error, StarflowError):
        return data


def other_pictures(
    pipe: Pipeline, paintings: np.ndarray, step: float
) -> dict[str, dict[str, float]]:
    """Mean bytes and PSNR of paintings, and of kinds of pictures that the model was not trained
    on."""
    rng = np.random.default_rng(7)
    kinds = {"paintings": lambda p, _: p, **OUTLIERS}
    table = {}
    for kind, change in kinds.items():
        rows = []
        for pixels in paintings:
            other = np.ascontiguousarray(change(pixels, rng))
            made = codec.compress_picture(pipe, Image.fromarray(other), step)
            back = codec.decompress(pipe, made.data)
            best = pipe.decode(_latent(pipe, other))[0]
            rows.append((len(made.data), psnr(other, back), psnr(other, best)))
        names = ("bytes", "PSNR, dB", "PSNR of the autoencoder alone, dB")
        table[kind] = {"pictures": len(rows)} | dict(
            zip(names, np.mean(rows, axis=0).tolist(), strict=True)
        )
    return table


def _latent(pipe: Pipeline, pixels: np.ndarray):
    from mlx_starflow.editing.inputs import latents_of

    return latents_of(pipe, [Image.fromarray(pixels)])
