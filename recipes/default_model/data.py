"""Paintings on disk: one array of pictures per split, and a file of scenes and captions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .painter import Scene, caption, paint_many
from .settings import DataSettings

_CHUNK = 2048
# Held-out paintings have seeds that are not used for training.
_HELD_OUT_SEED = 1_000_000


def read_json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def write_json(path: Path, value) -> None:
    """Replace the file in one step, so that an interruption never leaves it incomplete."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1))
    partial.replace(path)


def paint_split(folder: Path, split: str, settings: DataSettings, say=lambda text: None) -> None:
    """Paint one split chunk by chunk; a later call continues after the last finished chunk."""
    held_out = split == "held_out"
    count = settings.held_out if held_out else settings.train
    seed = settings.seed + (_HELD_OUT_SEED if held_out else 0)
    first = 0 if held_out else settings.first

    def paint_rows(start: int, stop: int) -> tuple[np.ndarray, list[dict]]:
        painted = paint_many(stop - start, seed, settings.size, settings.workers, first + start)
        images, texts, scenes = painted
        rows = []
        for i, (scene, text) in enumerate(zip(scenes, texts, strict=True)):
            rng = np.random.default_rng([seed, first + start + i, 1])
            more = [caption(scene, rng) for _ in range(settings.captions - 1)]
            rows.append({"scene": asdict(scene), "captions": [text, *more]})
        return images, rows

    store_split(folder, split, (count, settings.size, settings.size, 3), paint_rows, say)


def store_split(
    folder: Path,
    split: str,
    shape: tuple[int, ...],
    paint_rows: Callable[[int, int], tuple[np.ndarray, list[dict]]],
    say=lambda text: None,
    chunk: int = _CHUNK,
) -> None:
    """Write SPLIT.npy of this shape, uint8, and a line of SPLIT.jsonl for each of its rows.

    ``paint_rows(start, stop)`` returns the pictures and the lines of a range. A later call
    continues after the last finished chunk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = shape[0]
    pictures = folder / f"{split}.npy"
    if not pictures.exists():
        np.lib.format.open_memmap(pictures, "w+", np.uint8, shape).flush()
    array = np.lib.format.open_memmap(pictures, "r+")
    if array.shape != shape:
        raise ValueError(f"{pictures} has the shape {array.shape}; expected {shape}. Remove it.")
    lines = folder / f"{split}.jsonl"
    done = read_json(folder / f"{split}.json").get("done", 0)
    kept = lines.read_text().splitlines(keepends=True)[:done] if lines.exists() else []
    lines.write_text("".join(kept))
    while done < count:
        n = min(chunk, count - done)
        images, rows = paint_rows(done, done + n)
        array[done : done + n] = images
        array.flush()
        with lines.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        done += n
        write_json(folder / f"{split}.json", {"done": done, "count": count})
        say(f"painted {split} {done}/{count}")


def is_painted(folder: Path, split: str) -> bool:
    state = read_json(folder / f"{split}.json")
    return bool(state) and state["done"] == state["count"]


def open_pictures(folder: Path, split: str) -> np.ndarray:
    """(n, size, size, 3) uint8, mapped from disk."""
    return np.load(folder / f"{split}.npy", mmap_mode="r")


def read_scenes(folder: Path, split: str) -> tuple[list[Scene], list[list[str]]]:
    """The scenes of a split and, for each, its captions."""
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
    return [Scene(**row["scene"]) for row in rows], [row["captions"] for row in rows]
