"""Compare pictures with a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..editing.inputs import contexts_of
from ..errors import UsageError
from ..pictures.read import Picture
from ..pipeline import Pipeline
from .conformal import least_p_value, p_values, token_map
from .measure import Measured, measure
from .reference import Reference


@dataclass(frozen=True)
class Region:
    """A group of neighbouring tokens whose distance is above the threshold."""

    box: tuple[int, int, int, int]  # pixels: left, top, right, bottom
    value: float  # the largest distance in it


@dataclass(frozen=True)
class Finding:
    """The result for one picture."""

    path: str
    p_value: float  # for an ordinary picture, p_value <= a has probability at most a, for every a
    anomalous: bool  # p_value <= the chosen false-alarm rate
    statistic: str  # name of the statistic with the largest score
    statistics: dict[str, tuple[float, float]]  # name -> (score, p-value of this statistic alone)
    map: np.ndarray  # (rows, columns) distances of the tokens
    threshold: float  # the largest distance in an ordinary picture exceeds it at this rate
    regions: tuple[Region, ...]  # largest value first


def check(
    pipe: Pipeline, reference: Reference, pictures: Sequence[Picture], false_alarms: float = 0.05
) -> list[Finding]:
    """Compare each picture with a reference. ``false_alarms``: the false-alarm rate, between 0
    and 1.

    Errors: UsageError if the reference was made with another model or is too small for the
    false-alarm rate; NumericsError.
    """
    if not 0 < false_alarms < 1:
        raise UsageError(f"false_alarms is {false_alarms}; expected a number between 0 and 1.")
    if reference.model != pipe.fingerprint:
        raise UsageError(
            f"The reference was made with the weights {reference.model}, but this model has "
            f"{pipe.fingerprint}. Choose the model of the reference with --model, or make a new "
            "reference."
        )
    least = least_p_value(len(reference.measured))
    if least > false_alarms:
        raise UsageError(
            f"With {len(reference.measured)} reference pictures the smallest p-value is "
            f"{least:.2g}; a false-alarm rate of {false_alarms:g} needs at least "
            f"{int(np.ceil(1 / false_alarms)) - 1} pictures."
        )
    context = contexts_of(pipe, [reference.prompt], reference.aspect_ratio)
    images = [p.image for p in pictures]
    measured = measure(pipe, images, context, reference.draws, reference.seed)
    if measured.grid != reference.measured.grid:
        raise UsageError("The pictures and those of the reference have different sizes.")
    return [
        _finding(reference, measured.take([i]), picture, false_alarms)
        for i, picture in enumerate(pictures)
    ]


def _finding(
    reference: Reference, measured: Measured, picture: Picture, false_alarms: float
) -> Finding:
    p, statistics = p_values(reference.measured, measured)
    distances, threshold = token_map(reference.measured, measured, false_alarms)
    grid = measured.grid
    where = distances.reshape(grid)
    return Finding(
        path=picture.path,
        p_value=p,
        anomalous=p <= false_alarms,
        statistic=max(statistics, key=lambda name: statistics[name][0]),
        statistics=statistics,
        map=where,
        threshold=threshold,
        regions=regions(where, threshold, picture.image.size),
    )


def regions(where: np.ndarray, threshold: float, size: tuple[int, int]) -> tuple[Region, ...]:
    """Boxes around groups of neighbouring tokens above the threshold, largest value first.

    ``where`` (rows, columns): distances of the tokens. ``size``: width and height in pixels.
    """
    above = where > threshold
    width, height = size[0] / where.shape[1], size[1] / where.shape[0]
    found = []
    while above.any():
        start = tuple(np.argwhere(above)[0])
        group, waiting = [], [start]
        above[start] = False
        while waiting:
            row, column = waiting.pop()
            group.append((row, column))
            for beside in (
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            ):
                inside = 0 <= beside[0] < where.shape[0] and 0 <= beside[1] < where.shape[1]
                if inside and above[beside]:
                    above[beside] = False
                    waiting.append(beside)
        rows, columns = np.array(group).T
        box = (
            round(columns.min() * width),
            round(rows.min() * height),
            round((columns.max() + 1) * width),
            round((rows.max() + 1) * height),
        )
        found.append(Region(box, float(max(where[place] for place in group))))
    return tuple(sorted(found, key=lambda r: -r.value))
