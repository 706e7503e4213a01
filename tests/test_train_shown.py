"""What a training shows: previews from fixed seeds, and the loss curve as a table and a plot."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from teaching import MOVING, followed, pictures, summary

from mlx_starflow.pictures.metadata import read_metadata
from mlx_starflow.training.curve import TOP, TRAIN, VALID
from mlx_starflow.training.events import Evaluated, Previewed, Stepped


@pytest.fixture(scope="module")
def trained(colours, tmp_path_factory):
    """The directory and the events of a training."""
    place = tmp_path_factory.mktemp("shown")
    data = pictures(place / "data")
    changes = dict(iters=4, steps_per_eval=2, previews=2)
    return place, followed(colours, data, place / "a", **changes, **MOVING)


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_previews_are_from_fixed_seeds(colours, trained, tmp_path):
    """The same prompts and noise at every evaluation, drawn with what was learned by then."""
    place, events = trained
    drawn = [e.path for e in events if isinstance(e, Previewed)]
    assert drawn == [place / "a/previews" / f"{step:07d}.png" for step in (0, 2, 4)]
    for step, path in zip((0, 2, 4), drawn, strict=True):
        stored = read_metadata(path)
        assert stored["step"] == step and stored["prompts"] == ["red", "green"]
    assert not (pixels(drawn[0]) == pixels(drawn[2])).all()
    again = followed(colours, place / "data", tmp_path / "b", iters=1, previews=2)
    first = next(e.path for e in again if isinstance(e, Previewed))
    assert (pixels(drawn[0]) == pixels(first)).all()


def test_the_table_has_what_was_reported(trained):
    place, events = trained
    rows, since = [], []
    for event in events:
        if isinstance(event, Stepped):
            since.append(event.bits_per_dim)
        elif isinstance(event, Evaluated):
            mean = sum(since) / len(since) if since else math.nan
            rows.append([event.step, mean, event.valid.mean, event.valid.standard_error])
            since = []
    head, *lines = (place / "a/loss.csv").read_text().splitlines()
    assert head == "step,train_bits_per_dim,valid_bits_per_dim,standard_error"
    assert [row[0] for row in rows] == [0, 2, 4] and lines[0].startswith("0,,")
    for line, row in zip(lines, rows, strict=True):
        found = [float(value or "nan") for value in line.split(",")]
        assert found == pytest.approx(row, rel=1e-5, nan_ok=True)


def test_the_plot_shows_both_curves(trained):
    """As lines, below the legend, which has the same colours."""
    plot = pixels(trained[0] / "a/loss.png")[TOP:]
    for colour in (TRAIN, VALID):
        rows, columns = np.nonzero((plot == colour).all(axis=-1))
        assert len({*columns}) > 300 and len({*rows}) > 30, colour


def test_one_number_has_no_standard_error(colours, tmp_path):
    """One held-out picture with one draw: nothing in the table, and the training goes on."""
    data, one = pictures(tmp_path / "data"), dict(iters=2, steps_per_eval=1, val_draws=1)
    followed(colours, data, tmp_path / "a", stop_after=1, **one)
    rest = followed(colours, data, tmp_path / "a", resume=True, **one)
    assert summary(rest)["iterations"] == 2 and summary(rest)["valid_standard_error"] is None
    head, *rows = (tmp_path / "a/loss.csv").read_text().splitlines()
    assert len(rows) == 3 and all(row.endswith(",") for row in rows)
