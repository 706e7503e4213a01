"""Measure all tables of docs/watch.md:

python -m recipes.default_model.watching --page docs/watch.md

The paintings have seeds that are not used elsewhere. Measurements are stored in --folder, so that
an interrupted run can continue.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from mlx_starflow.editing.inputs import contexts_of
from mlx_starflow.pipeline import Pipeline, load
from mlx_starflow.watch.conformal import p_value, p_values, token_map
from mlx_starflow.watch.measure import Measured, measure
from mlx_starflow.watch.reference import DRAWS
from mlx_starflow.watch.statistics import STATISTICS, scores

from ..compression.__main__ import table, weights
from ..compression.rate import content
from ..known import paint_known
from ..likelihood.__main__ import write_into
from ..likelihood.outliers import OUTLIERS
from .defects import DEFECTS

SEED = 11_000_000  # first seed of the paintings
RATE = 0.05
SIZES = (40, 60, 100, 200)  # numbers of pictures of a reference
PARTS = ("false-alarms", "kinds", "defects")
FOLDER = Path("recipes/default_model/runs/watching")
_CHUNK = 20
_REFERENCES = 10  # random references for the kinds of outliers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a bundle; default: the embedded model")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--count", type=int, default=1000, help="paintings for false alarms")
    parser.add_argument("--each", type=int, default=200, help="pictures of each other kind")
    parser.add_argument("--reference", type=int, default=100, help="ordinary pictures")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--page", type=Path, help="also write the tables into this page")
    options = parser.parse_args()
    with load(options.model) as pipe:
        for part in options.part or PARTS:
            rows = {"false-alarms": false_alarms, "kinds": kinds, "defects": defects}[part](
                pipe, options
            )
            print(f"\n### {part}\n\n{table(rows)}", flush=True)
            if options.page:
                write_into(options.page, part, table(rows))
                write_into(options.page, f"weights of {part}", weights(pipe))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measured(pipe: Pipeline, folder: Path, name: str, pictures: list[np.ndarray]) -> Measured:
    """Measure pictures in chunks; the results for these weights are stored on disk."""
    context, whole = contexts_of(pipe, [""]), None
    for start in range(0, len(pictures), _CHUNK):
        chunk = pictures[start : start + _CHUNK]
        path = folder / pipe.fingerprint / f"{content(np.stack(chunk))}.npz"
        if not path.exists():
            made = measure(pipe, [Image.fromarray(p) for p in chunk], context, DRAWS, 0)
            path.parent.mkdir(parents=True, exist_ok=True)
            arrays = {k: getattr(made, k) for k in ("parts", "lost", "detail", "png")}
            np.savez(path, grid=made.grid, numbers=made.numbers, **arrays)
            say(f"{name}: {start + len(chunk)}/{len(pictures)}")
        with np.load(path) as held:
            grid = tuple(int(v) for v in held["grid"])
            arrays = [held[k] for k in ("parts", "lost", "detail", "png")]
            part = Measured(*arrays, grid, int(held["numbers"]))
        whole = part if whole is None else whole.and_(part)
    return whole


def false_alarms(pipe: Pipeline, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """For each size of reference: the share of paintings with a p-value of at most RATE, each with
    a new random reference of other paintings; and the range of this share over 20 fixed references
    with 100 other paintings each."""
    paintings = paint_known(pipe, options.count, SEED)[0]
    all_ = measured(pipe, options.folder, "ordinary", list(paintings))
    rng, n, result = np.random.default_rng(1), len(all_), {}
    for size in (s for s in SIZES if 2 * s <= n):
        found = []
        for i in range(n):
            others = rng.choice(np.delete(np.arange(n), i), size, replace=False)
            found.append(p_values(all_.take(others), all_.take([i]))[0] <= RATE)
        fixed = []
        for _ in range(20):
            order = rng.permutation(n)
            reference = all_.take(order[:size])
            rest = [p_values(reference, all_.take([i]))[0] for i in order[size : size + 100]]
            fixed.append(np.mean(np.array(rest) <= RATE))
        low, high = _interval(n, math.floor(RATE * (size + 1)) / (size + 1))
        result[f"{size} pictures"] = {
            "paintings": n, "expected, %": 100 * math.floor(RATE * (size + 1)) / (size + 1),
            "found, %": 100 * float(np.mean(found)), "interval from, %": 100 * low,
            "to, %": 100 * high, "one reference: from, %": 100 * min(fixed),
            "one reference: to, %": 100 * max(fixed),
        }  # fmt: skip
    return result


def _interval(n: int, p: float) -> tuple[float, float]:
    """The central interval that contains 95 % of draws of binomial(n, p), as shares of n."""
    term, total, low, high = (1 - p) ** n, 0.0, None, n
    for k in range(n + 1):
        total += term
        if low is None and total >= 0.025:
            low = k
        if total >= 0.975:
            high = k
            break
        term *= (n - k) / (k + 1) * p / (1 - p)
    return (low or 0) / n, high / n


def kinds(pipe: Pipeline, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The share of detected pictures of each kind of outlier at the false-alarm rate RATE, with all
    statistics together and with each alone: means over random references, and the range of the
    first."""
    ordinary = measured(
        pipe, options.folder, "ordinary", list(paint_known(pipe, options.count, SEED)[0])
    )
    chosen = np.random.default_rng(5)
    references = [
        ordinary.take(chosen.choice(len(ordinary), options.reference, replace=False))
        for _ in range(_REFERENCES)
    ]
    paintings = paint_known(pipe, options.each, SEED + 2)[0]
    rng, result = np.random.default_rng(7), {}
    for name, change in {"paintings": lambda p, _: p, **OUTLIERS}.items():
        pictures = [np.ascontiguousarray(change(p, rng)) for p in paintings]
        found = measured(pipe, options.folder, name, pictures)
        rows = [_detected(reference, found) for reference in references]
        result[name] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        every = [row["detected"] for row in rows]
        result[name] |= {"one reference: from": min(every), "to": max(every)}
    return result


def defects(pipe: Pipeline, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The share of detected pictures for each local defect at RATE, and how often the most unusual
    token of the map touches the defect."""
    size = pipe.config.image_size
    reference = _reference(pipe, options)
    paintings, _, scenes = paint_known(pipe, 4 * options.each, SEED + 3)
    single = [i for i, s in enumerate(scenes) if s.count == 1][: options.each]
    rng, result = np.random.default_rng(9), {}
    for name, change in DEFECTS.items():
        made = [change(paintings[i], scenes[i], rng) for i in single]
        found = measured(pipe, options.folder, name, [m[0] for m in made])
        row = _detected(reference, found)
        row |= _placed(reference, found, [m[1] for m in made], size)
        result[name] = row
    return result


def _reference(pipe: Pipeline, options: argparse.Namespace) -> Measured:
    paintings = paint_known(pipe, options.reference, SEED + 1)[0]
    return measured(pipe, options.folder, "reference", list(paintings))


def _detected(reference: Measured, found: Measured) -> dict[str, float]:
    together, alone = [], {name: [] for name in STATISTICS}
    for i in range(len(found)):
        values = scores(reference.and_(found.take([i])))
        together.append(p_value(np.max(np.stack(list(values.values())), axis=0)))
        for name, own in values.items():
            alone[name].append(p_value(own))
    share = {"pictures": len(found), "detected": float(np.mean(np.array(together) <= RATE))}
    return share | {name: float(np.mean(np.array(p) <= RATE)) for name, p in alone.items()}


def _placed(reference: Measured, found: Measured, boxes: list, size: int) -> dict[str, float]:
    """The share of pictures with a token above the map's threshold; the share in which the most
    unusual token touches the defect, of all pictures and of those above the threshold; and the
    share of all tokens that touch the defect, which is the chance level."""
    rows, columns = found.grid
    hits, above, chance = [], [], []
    for i in range(len(found)):
        distances, threshold = token_map(reference, found.take([i]), RATE)
        touched = np.zeros((rows, columns), bool)
        for top, left, bottom, right in boxes[i]:
            height, width = size / rows, size / columns
            row = slice(int(top / height), math.ceil(bottom / height))
            touched[row, int(left / width) : math.ceil(right / width)] = True
        hits.append(bool(touched.ravel()[distances.argmax()]))
        above.append(bool(distances.max() > threshold))
        chance.append(touched.mean())
    hits, above = np.array(hits), np.array(above)
    return {
        "map significant": float(above.mean()),
        "right place": float(hits.mean()),
        "right place where significant": float(hits[above].mean()) if above.any() else math.nan,
        "by chance": float(np.mean(chance)),
    }


if __name__ == "__main__":
    main()
