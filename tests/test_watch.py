"""Anomalies: exact p-values, statistics that find what they should, files, the command."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from families import FAMILIES, example, random_flow
from PIL import Image

import mlx_starflow as sf
from mlx_starflow.errors import ConfigError, NumericsError, UsageError
from mlx_starflow.exact.composition import composition
from mlx_starflow.pictures.read import Picture
from mlx_starflow.watch import check, fit, read_reference, write_reference
from mlx_starflow.watch.check import regions
from mlx_starflow.watch.conformal import p_values, token_map
from mlx_starflow.watch.measure import Measured
from mlx_starflow.watch.statistics import scores, token_distances


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_add_up_to_the_likelihood(family):
    flow = random_flow(FAMILIES[family])
    x, context = example(flow.config)
    parts = composition(flow, x, context)
    assert parts.shape[2] == len(flow.blocks) + 1
    expected = -np.array(sf.log_prob(flow, x, context))
    assert np.allclose(parts.sum(axis=(1, 2)), expected, rtol=1e-4)


def bag(n: int, seed: int = 0, **changes) -> Measured:
    """Measurements drawn from one distribution, with dependence between places."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1, 1))
    parts = common + rng.normal(size=(n, 16, 3)) ** 3
    lost, detail = rng.normal(size=(n, 16)), rng.normal(size=(n, 16)) + common[..., 0]
    made = Measured(parts, lost, detail, common[:, 0, 0] + rng.normal(size=n), (4, 4), 48)
    return dataclasses.replace(made, **changes)


def test_no_score_depends_on_the_order_of_the_pictures():
    """What makes the p-values exact: scores move with their pictures."""
    whole, order = bag(30), np.random.default_rng(1).permutation(30)
    for name, values in scores(whole).items():
        assert np.allclose(values[order], scores(whole.take(order))[name], atol=1e-8), name


def test_a_picture_is_no_reference_of_itself():
    whole = bag(30)
    whole.parts[7] += 1000.0
    distances = token_distances(whole).mean(axis=1)
    assert distances[7] > 1000 * np.delete(distances, 7).max()


def test_false_alarms_are_as_often_as_stated():
    """Over the draw of reference and picture: 400 of them, n = 39, so 2 of 40 ranks count."""
    whole = bag(2000)
    rng, found = np.random.default_rng(2), []
    for i in range(400):
        rows = rng.choice(2000, 40, replace=False)
        found.append(p_values(whole.take(rows[:39]), whole.take(rows[39:]))[0] <= 0.05)
        assert len(set(rows)) == 40, i
    assert 0.021 <= np.mean(found) <= 0.085  # 99.9 % of binomial draws of 400 at 0.05


def test_the_map_alarms_as_often_as_stated():
    whole = bag(1200, seed=5)
    rng, found = np.random.default_rng(3), []
    for _ in range(300):
        rows = rng.choice(1200, 40, replace=False)
        distances, threshold = token_map(whole.take(rows[:39]), whole.take(rows[39:]), 0.05)
        found.append(distances.max() > threshold)
    assert 0.015 <= np.mean(found) <= 0.095


def test_a_changed_place_is_found_where_it_is():
    reference, picture = bag(60), bag(1, seed=9)
    picture.parts[0, 5] += 150.0
    p, statistics = p_values(reference, picture)
    assert p == 1 / 61
    distances, threshold = token_map(reference, picture, 0.05)
    assert distances.argmax() == 5 and distances[5] > threshold
    assert statistics["spot"][1] == 1 / 61


def test_few_pictures_give_no_threshold():
    assert token_map(bag(10), bag(1, seed=4), 0.05)[1] == np.inf


def test_regions_are_boxes_around_neighbours():
    where = np.zeros((4, 4))
    where[1, 1], where[1, 2], where[3, 3] = 2.0, 5.0, 3.0
    found = regions(where, 1.0, (64, 64))
    assert [(r.box, r.value) for r in found] == [((16, 16, 48, 32), 5.0), ((48, 48, 64, 64), 3.0)]


def smooth(seed: int, side: int = 12) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (3, 3, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def noise(seed: int, side: int = 12) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3))
    return Image.fromarray(values.astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ordinary")
    for i in range(40):
        smooth(i).save(directory / f"{i:02d}.png")
    return directory


def test_fit_and_check_find_what_is_unusual(colours, tmp_path):
    pipe = sf.load(colours)
    pictures = [Picture(smooth(i), str(i)) for i in range(40)]
    reference = fit(pipe, pictures, "1:1", draws=1)
    path = write_reference(tmp_path / "normal.json", reference)
    back = read_reference(path)
    assert np.allclose(back.measured.parts, reference.measured.parts, rtol=1e-6)
    given = [Picture(smooth(100), "ordinary"), Picture(noise(1), "noise")]
    ordinary, unusual = check(pipe, back, given)
    assert unusual.p_value == 1 / 41 and unusual.anomalous and unusual.regions
    assert ordinary.p_value > unusual.p_value
    with pytest.raises(UsageError, match="at least 99"):
        check(pipe, back, given, false_alarms=0.01)
    other = dataclasses.replace(back, model="0" * 16)
    with pytest.raises(UsageError, match="was made with the weights"):
        check(pipe, other, given)
    with pytest.raises(UsageError, match="at least 20"):
        fit(pipe, pictures[:5], "1:1")
    mx.synchronize()


def test_the_command(colours, folder, run, tmp_path):  # noqa: F811
    made = run("watch", "fit", folder, "-o", "normal.json", "--draws", 1, "-m", colours, "--quiet")
    assert made.status == 0 and made.lines == ["normal.json"]
    noise(3).save(tmp_path / "noise.png")
    common = ("-r", "normal.json", "-m", colours, "--quiet")
    found = run("watch", "check", "noise.png", *common, "--json", "--map", "where.png")
    record = json.loads(found.out)
    assert found.status == 3 and record["anomalous"] and record["p_value"] == 1 / 41
    assert record["statistic"] in record["statistics"]
    assert np.array(record["map"]["values"]).shape == (6, 6)
    assert (tmp_path / record["map"]["path"]).is_file()
    again = run("watch", "check", folder / "00.png", "noise.png", *common)
    assert again.status == 3 and "UNUSUAL" in again.lines[1]
    assert run("watch", "check", folder / "01.png", *common, "--json").status in (0, 3)
    wrong = run("watch", "check", "noise.png", *common, "--follow")
    assert wrong.status == 2 and "needs folders" in wrong.err


def test_one_broken_picture_does_not_lose_the_others(colours, folder, run, tmp_path):  # noqa: F811
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    (mixed / "05.png").write_bytes((folder / "05.png").read_bytes()[:60])
    smooth(1, 24).save(mixed / "06.png")  # of another size
    common = ("-m", colours, "--draws", 1)
    made = run("watch", "fit", mixed, "-o", "normal.json", *common, "--json")
    assert made.status == 1 and "2 of 40 pictures could not be read" in made.err
    result = json.loads(made.out)
    assert result["pictures"] == 38 and (tmp_path / "normal.json").is_file()
    assert [Path(f["path"]).name for f in result["failed"]] == ["05.png", "06.png"]

    for name in ("07.png", "08.png"):
        (mixed / name).unlink()
    check_ = ("watch", "check", mixed, "-r", "normal.json", "-m", colours)
    found = run(*check_, "--json")
    assert found.status == 1 and "2 of 38 pictures could not be read" in found.err
    result = json.loads(found.out)
    assert len(result["images"]) == 36
    assert [Path(f["path"]).name for f in result["failed"]] == ["05.png", "06.png"]
    assert len(run(*check_).lines) == 36

    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("a.png", "b.png"):
        (broken / name).write_bytes(b"none")
    for command in (("fit", broken, "-o", "other.json"), ("check", broken, "-r", "normal.json")):
        none = run("watch", *command, "-m", colours)
        assert none.status == 1 and "2 of 2 pictures" in none.err, none.err
        assert not (tmp_path / "other.json").exists()
    single = run("watch", "check", broken / "a.png", "-r", "normal.json", "-m", colours, "--json")
    assert single.status == 1 and not single.out and "a.png" in single.err


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"format": "x"}, {"draws": "4"}, {"png": []}, {"grid": [6]},
        {"parts": [[1.0]]}, {"numbers": 0}, {"lost": None}, {"draws": 10**9}, {"draws": 257},
        {"png": [1e10] * 20}, {"lost": [[101.0] * 36] * 20}, {"png": [1e400] * 20},
    ],
)  # fmt: skip
def test_damaged_references_are_named(colours, tmp_path, change):
    pipe = sf.load(colours)
    reference = fit(pipe, [Picture(smooth(i), str(i)) for i in range(20)], "1:1", draws=1)
    path = write_reference(tmp_path / "normal.json", reference)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match="normal.json"):
        read_reference(path)


def test_scores_that_are_no_numbers_have_no_p_value(colours):
    """A p-value of 0 does not exist; it would be a false alarm."""
    pipe = sf.load(colours)
    pictures = [Picture(smooth(i), str(i)) for i in range(20)]
    reference = fit(pipe, pictures, "1:1", draws=1)
    reference.measured.lost[3, 0] = 1e300
    with np.errstate(all="ignore"), pytest.raises(NumericsError, match="no p-value"):
        check(pipe, reference, pictures[:1])
    with pytest.raises(UsageError, match="draws is 257"):  # which check would not read
        fit(pipe, pictures, "1:1", draws=257)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": NaN}', '{"seed": ' + "9" * 5_000 + "}", "\xff"]
)
def test_a_reference_that_is_no_json_is_refused(tmp_path, text):
    path = tmp_path / "normal.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"normal\.json"):
        read_reference(path)


def test_a_pipe_is_no_reference(tmp_path):
    """Opened, it would wait for a writer for ever."""
    os.mkfifo(tmp_path / "normal.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_reference(tmp_path / "normal.json")
