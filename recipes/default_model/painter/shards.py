"""Paint many pictures, in memory or as shards on disk."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .captions import caption
from .compose import paint
from .scene import Scene, random_scene

_CHUNK = 64


def _scene_and_caption(seed: int, index: int) -> tuple[Scene, str]:
    # Each picture has its own random stream, so that it does not depend on the number of pictures.
    rng = np.random.default_rng([seed, index])
    scene = random_scene(rng)
    return scene, caption(scene, rng)


def _paint_range(job: tuple[int, int, int, int]) -> tuple[np.ndarray, list[str], list[Scene]]:
    seed, start, stop, size = job
    images = np.empty((stop - start, size, size, 3), np.uint8)
    texts, scenes = [], []
    for i in range(start, stop):
        scene, text = _scene_and_caption(seed, i)
        images[i - start] = np.asarray(paint(scene, size))
        texts.append(text)
        scenes.append(scene)
    return images, texts, scenes


def spread(function: Callable, jobs: list[tuple], workers: int) -> Iterator:
    """The results of ``function`` for every job, in order, computed in ``workers`` processes."""
    if workers <= 1 or len(jobs) == 1:
        yield from map(function, jobs)
        return
    # "spawn", because a forked copy of a process with threads of a deep-learning library can
    # hang. An executor raises an error if a worker cannot start; a Pool would wait forever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(function, jobs)


def paint_many(
    n: int, seed: int, size: int = 128, workers: int = 2, start: int = 0
) -> tuple[np.ndarray, list[str], list[Scene]]:
    """Paint the pictures ``start`` to ``start + n - 1`` of the series of ``seed``.

    Returns uint8 pictures (n, size, size, 3), their captions and their scenes. With more than one
    worker the calling script must be a file and start its work under ``if __name__ == "__main__"``.
    """
    jobs = [(seed, a, min(a + _CHUNK, start + n), size) for a in range(start, start + n, _CHUNK)]
    images = np.empty((n, size, size, 3), np.uint8)
    texts: list[str] = []
    scenes: list[Scene] = []

    def gather(parts) -> None:
        for part, part_texts, part_scenes in parts:
            images[len(texts) : len(texts) + len(part)] = part
            texts.extend(part_texts)
            scenes.extend(part_scenes)

    gather(spread(_paint_range, jobs, workers))
    return images, texts, scenes


def write_shards(
    output: Path, count: int, seed: int, size: int = 128, shard: int = 2048, workers: int = 2
) -> Iterator[Path]:
    """Write ``count`` paintings as ``paintings-SEED-NNNNN.npz`` and yield each shard's path.

    A shard has ``images`` (k, size, size, 3) uint8, ``captions`` and ``scenes`` (JSON), both
    string arrays of length k. Finished shards are kept, so an interrupted run can continue.
    """
    output.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, count, shard)):
        k = min(shard, count - start)
        path = output / f"paintings-{seed}-{number:05d}.npz"
        if not _complete(path, k, size):
            images, texts, scenes = paint_many(k, seed, size, workers, start)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                rows = [json.dumps(asdict(scene)) for scene in scenes]
                np.savez(file, images=images, captions=np.array(texts), scenes=np.array(rows))
            partial.replace(path)
        yield path


def _complete(path: Path, count: int, size: int) -> bool:
    if not path.exists():
        return False
    with np.load(path) as held:
        return held["captions"].shape == (count,) and held["images"].shape[1] == size
