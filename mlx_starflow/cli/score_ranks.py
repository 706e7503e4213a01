"""``mlx-starflow score`` over several ranks: groups of pictures are handed out."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..exact.scoring import Score
from ..flow.grid import Grid
from ..flow.split import Split
from ..pictures.opening import picture_in
from ..pictures.read import Picture
from ..pipeline import Pipeline
from ..ranks import Group, agree, spread
from ..ranks.handing_out import Made
from .console import Console
from .scoring import Scoring


def score_over_ranks(
    work: Scoring,
    pipe: Pipeline,
    group: Group,
    about: dict[str, Any],
    console: Console,
    split: Split | None = None,
) -> None:
    """Do the work on all ranks; rank 0's ``work`` then holds all results, in the order of its
    paths. ``about``: the settings that the ranks must agree on. ``split``: of the model, of which
    every rank has a share; else groups of pictures are handed out."""
    names = "\n".join(path.name for path in work.paths)
    parts = [pipe.fingerprint_of(name) for name in ("flow", "vae", "text_encoder")]
    facts = {
        "model": f"{pipe.config.name} ({' '.join(p for p in parts if p)})",
        "settings": json.dumps(about, sort_keys=True),
        "list of pictures": hashlib.sha256(names.encode()).hexdigest()[:16],
    }
    agree(group, {**facts, "split": "pictures" if split is None else split.kind})
    work.step = group.step
    if split is not None:
        with group.watched():
            work.run(pipe)
        return
    found: dict[int, Made] = {}
    own: set[int] = set()  # items whose warnings this rank has shown

    def score(item: int) -> Made:
        own.add(item)
        return _packed(work, pipe, item)

    def keep(item: int, made: Made) -> None:
        found[item] = made
        console.draw("score", f"{len(found)}/{work.groups} groups", len(found) / work.groups, None)

    try:
        spread(group, work.groups, score, keep)
    finally:
        if group.rank == 0:  # after an interruption: those that are finished
            work.found, work.failed = [], []
            for item in sorted(found):
                for warning in found[item].data["failed"] if item not in own else ():
                    console.say(f"Warning: {warning['error']}")
                work.failed += found[item].data["failed"]
                work.found += _unpacked(found[item])


def _packed(work: Scoring, pipe: Pipeline, item: int) -> Made:
    work.found, work.failed = [], []
    work.run_group(pipe, item)
    rows: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for picture, score in work.found:
        grid = dataclasses.asdict(score.grid)
        own = {k: getattr(score, k) for k in ("numbers", "noise", "noise_std", "seed")}
        rows.append({"path": picture.path, "notes": list(picture.notes), "grid": grid, **own})
        content = io.BytesIO()
        picture.image.save(content, format="PNG")
        blobs += [_bytes(score.log_p), _bytes(score.surprise), content.getvalue()]
    data = {"rows": rows, "failed": work.failed}
    return Made(json.loads(json.dumps(data)), tuple(blobs))


def _unpacked(made: Made) -> Iterable[tuple[Picture, Score]]:
    for number, row in enumerate(made.data["rows"]):
        log_p, surprise, image = made.blobs[3 * number : 3 * number + 3]
        picture = Picture(picture_in(image, row["path"]), row["path"], tuple(row["notes"]))
        yield picture, Score(
            _array(log_p), _array(surprise), Grid(**row["grid"]), row["numbers"], row["noise"],
            row["noise_std"], row["seed"],
        )  # fmt: skip


def _bytes(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _array(content: bytes) -> np.ndarray:
    found: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return found
