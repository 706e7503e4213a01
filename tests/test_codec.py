"""Compressing tokens and pictures with the flow as the model of the code."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from families import FAMILIES, example, random_flow
from PIL import Image

import mlx_starflow as sf
from mlx_starflow.codec import file
from mlx_starflow.errors import CodecError, ConfigError, StarflowError, UsageError
from mlx_starflow.exact import codec, codec_cells, codec_integers
from mlx_starflow.flow.grid import grid_of, patchify

pytest.importorskip("constriction")
STEP = 0.25


@pytest.fixture
def colours(few_tokens):
    return few_tokens


def tokens_of(flow, x, context):
    grid = grid_of(x, flow.config)
    u = codec.before_deep_block(flow, patchify(x, flow.config), grid, context)
    return u, grid


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_come_back_exactly_and_cost_what_the_flow_says(family):
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, batch=1)
    u, grid = tokens_of(flow, 2 * z, context)
    step = STEP * np.linspace(0.5, 2, flow.config.token_channels)
    errors = []
    for thrift in (0.0, codec_cells.THRIFT):
        code = codec.encode_tokens(flow, u, grid, context, step, seed=3, thrift=thrift)
        found = codec.decode_tokens(flow, code.data, code.extent, grid, context, step, seed=3)
        assert np.array_equal(found.symbols, code.symbols)
        assert mx.array_equal(found.tokens, code.tokens)
        errors.append(np.abs(np.array(found.tokens - u)))
        # One byte for the end, and what rounding mean and scale to their grids costs.
        assert 8 * len(code.data) <= 1.005 * code.ideal_bits + 8
    assert (errors[0] <= step + 1e-5).all()  # in the right cell, at the Gaussian's mean in it


@pytest.mark.parametrize("family", ["released", "grouped_gated", "no_sos", "tarflow_classes"])
def test_shallow_blocks_are_undone(family):
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, batch=1)
    u, grid = tokens_of(flow, z, context)
    back = codec.before_shallow_blocks(flow, u, grid, context)
    assert mx.abs(back - patchify(z, flow.config)).max().item() < 1e-4


def test_ideal_bits_are_the_gaussians_own():
    """Against an integral of the density, in the middle and in the tail."""
    for centre, width in ((0.3, 0.5), (4.0, 0.1), (-7.5, 2.0)):
        x = np.linspace(centre - width / 2, centre + width / 2, 20001)
        p = np.trapezoid(np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi), x)
        found = codec_cells.cell_bits(np.array([centre]), np.array([width]))[0]
        assert found == pytest.approx(-np.log2(p), abs=1e-5)
    far = codec_cells.cell_bits(np.array([60.0]), np.array([0.5]))[0]
    assert far == pytest.approx(0.5 * 59.75**2 / np.log(2), rel=5e-3)


def test_last_digits_do_not_change_a_portable_file(unconditional, monkeypatch):
    pipe = sf.load(unconditional)
    pictures = [picture(pipe, seed) for seed in range(6)]
    made = [sf.codec.compress_picture(pipe, p) for p in pictures]
    assert all(m.portable for m in made)
    original, rng = codec._Conditionals.of, np.random.default_rng(0)

    def elsewhere(self, previous, t):
        sigma, b = original(self, previous, t)
        off = codec_integers.MARGIN / codec_integers.PER_OCTAVE / 2
        b = b + off * sigma * rng.uniform(-1, 1, b.shape)
        return sigma * (1 + 0.5 * off * rng.uniform(-1, 1, b.shape)), b

    monkeypatch.setattr(codec._Conditionals, "of", elsewhere)
    for m in made:
        assert sf.codec.decompress(pipe, m.data).size == pictures[0].size


def test_another_arithmetic_is_an_error_and_no_picture(colours, monkeypatch):
    pipe = sf.load(colours)
    data = sf.codec.compress(pipe, picture(pipe, 1))
    original = codec._Conditionals.of
    monkeypatch.setattr(
        codec._Conditionals, "of", lambda s, p, t: tuple(1.2 * v for v in original(s, p, t))
    )
    with pytest.raises(CodecError, match="damaged"):
        sf.codec.decompress(pipe, data)
    monkeypatch.setattr("mlx_starflow.codec.pictures.arithmetic_fingerprint", lambda: 1)
    with pytest.raises(CodecError, match="another device"):
        sf.codec.decompress(pipe, data)


def picture(pipe, seed: int) -> Image.Image:
    """Smooth colours at the model's size."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 3, 3)).astype(np.uint8)
    side = pipe.config.image_size
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("model", ["colours", "classes", "unconditional"])
def test_pictures_come_back_the_better_the_smaller_the_step(model, request):
    pipe = sf.load(request.getfixturevalue(model))
    given = picture(pipe, 2)
    prompt = {"colours": "red", "classes": "3"}.get(model)
    sizes, errors = [], []
    for step in (1.0, 0.25, 0.01):
        data = sf.codec.compress(pipe, given, step=step, prompt=prompt)
        back = sf.codec.decompress(pipe, data)
        assert sf.codec.inspect(data).prompt == prompt
        sizes.append(len(data))
        wanted = np.asarray(given.convert(back.mode), float)
        errors.append(np.abs(np.asarray(back, float) - wanted).mean())
    assert sizes[0] < sizes[1] < sizes[2]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 2


SHIFTS_OF_SEED_5 = [[15318, 5932, -19150], [-3712, -16450, 11638]]  # in 2^-16 grid points
HALVES_OF_SEED_5 = [[1, 0, 1], [0, 0, 1]]


def test_the_shifts_are_the_same_everywhere():
    shifts = codec_integers.Shifts.of(5, 2, 3)
    assert (shifts.mean * 2**16).astype(int).tolist() == SHIFTS_OF_SEED_5
    assert shifts.half.tolist() == HALVES_OF_SEED_5
    many = codec_integers.Shifts.of(0, 1000, 4)
    assert abs(many.mean.mean()) < 0.02 and abs(many.half.mean() - 0.5) < 0.02


def test_the_mean_in_a_cell_is_the_gaussians_own():
    """Against an integral of the density; far out, at the edge."""
    for q, deviation in ((0, 0.4), (1, 0.4), (-2, 3.0), (5, 1.1)):
        x = np.linspace(q - 0.5, q + 0.5, 20001)
        p = np.exp(-0.5 * (x / deviation) ** 2)
        wanted = np.trapezoid(x * p, x) / np.trapezoid(p, x)
        (found,) = codec_cells.cell_means(np.array([q]), np.array([deviation]))
        assert found == pytest.approx(wanted, abs=1e-5)
    assert codec_cells.cell_means(np.array([-900]), np.array([0.01]))[0] == -899.5


def test_an_integer_is_chosen_that_costs_least():
    """The nearest one, the next towards zero, or zero; the nearest if bits cost nothing."""
    rng = np.random.default_rng(0)
    x, deviation = 3 * rng.standard_normal(400), np.exp2(rng.uniform(-3, 2, 400))
    nearest = np.floor(x + 0.5)
    q = np.stack([nearest, nearest - np.sign(nearest), 0 * nearest])
    cost = (x - q) ** 2 + 0.05 * codec_cells.cell_bits(q / deviation, 1 / deviation)
    found = codec_cells.chosen(x, deviation, 0.05)
    assert np.array_equal(found, q[cost.argmin(0), np.arange(400)])
    assert (found != nearest).any()
    assert np.array_equal(codec_cells.chosen(x, deviation, 0), nearest)


def test_step_weights_are_measured_kept_and_part_of_the_model(colours, tmp_path):
    """A number that changes the pixels less gets a larger step; a file needs the same weights."""
    pipe = sf.load(colours)
    weights = sf.codec.measured_step_weights(pipe, [picture(pipe, i) for i in range(2)])
    assert len(weights) == pipe.flow.config.token_channels and min(weights) < 1 < max(weights)
    assert np.log(weights).mean() == pytest.approx(0, abs=0.01)
    data = sf.codec.compress(pipe, picture(pipe, 1))
    other = tmp_path / "model"
    shutil.copytree(colours, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(
        json.dumps({**config, "codec": {"step_weights": [2 * w for w in weights]}})
    )
    weighted = sf.load(other)
    assert len(sf.codec.compress(weighted, picture(pipe, 1))) < len(data)
    with pytest.raises(CodecError, match="another model"):
        sf.codec.decompress(weighted, data)
    (other / "config.json").write_text(json.dumps({**config, "codec": {"step_weights": [1.0]}}))
    with pytest.raises(ConfigError, match="1 step_weights"):
        sf.codec.compress(sf.load(other), picture(pipe, 1))


def test_target_bytes_are_kept(colours):
    pipe = sf.load(colours)
    given = picture(pipe, 4)
    for target in (110,):
        made = sf.codec.compress_picture(pipe, given, target_bytes=target)
        assert len(made.data) <= target
        finer = sf.codec.compress_picture(pipe, given, step=0.85 * made.step)
        assert len(finer.data) > target - 3
    with pytest.raises(UsageError, match="target_bytes is 15"):
        sf.codec.compress(pipe, given, target_bytes=15)


def test_far_pictures_cost_more_and_are_no_error(colours):
    pipe = sf.load(colours)
    side = pipe.config.image_size
    noise = np.random.default_rng(0).integers(0, 2, (side, side, 3)).astype(np.uint8) * 255
    ordinary = sf.codec.compress_picture(pipe, picture(pipe, 0))
    far = sf.codec.compress_picture(pipe, Image.fromarray(noise))
    assert far.ideal_bytes > ordinary.ideal_bytes
    assert sf.codec.decompress(pipe, far.data).size == (side, side)


def test_another_process_decodes_the_same(colours, tmp_path):
    pipe = sf.load(colours)
    data = sf.codec.compress(pipe, picture(pipe, 7), prompt="blue")
    (tmp_path / "a.flow").write_bytes(data)
    program = (
        "import sys, mlx_starflow as sf\n"
        "pipe = sf.load(sys.argv[1])\n"
        "back = sf.codec.decompress(pipe, open(sys.argv[2], 'rb').read())\n"
        "sys.stdout.buffer.write(back.tobytes())\n"
    )
    command = [sys.executable, "-c", program, str(colours), str(tmp_path / "a.flow")]
    ran = subprocess.run(command, capture_output=True, check=True)
    assert ran.stdout == sf.codec.decompress(pipe, data).tobytes()


def test_damaged_files_are_refused(colours):
    """Every file with one changed, missing or added byte, and pairs of changes whose outer
    checksum was made right again: refused, or found out by the checksum of the numbers."""
    pipe = sf.load(colours)
    data = sf.codec.compress(pipe, picture(pipe, 3), step=0.5, prompt="red")
    rng = np.random.default_rng(1)
    for i in range(len(data)):
        changed = bytearray(data)
        changed[i] ^= int(rng.integers(1, 256))
        for broken in (bytes(changed), data[:i], data + bytes([i % 256])):
            with pytest.raises(CodecError):
                sf.codec.decompress(pipe, broken)
    for _ in range(24):
        changed = bytearray(data)
        changed[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        with pytest.raises(StarflowError):
            sf.codec.decompress(pipe, repaired(bytes(changed)))


def repaired(data: bytes) -> bytes:
    """The file with the checksum of its bytes made right, where its header can be followed."""
    try:
        place = file.header_end(data)
        (check,) = struct.unpack_from(">I", data, place)
        return file.with_checks(data[:place], check, data[place + 6 :])
    except (struct.error, CodecError):
        return data


def test_what_a_file_says_cannot_make_a_reader_work(colours):
    pipe = sf.load(colours)
    data = sf.codec.compress(pipe, picture(pipe, 3))
    header, code = file.read(data)
    for change in (
        {"rows": 2**31, "columns": 2**31},
        {"rows": 0},
        {"precision": "bfloat16"},
        {"model": b"abcd"},
        {"prompt": "no such colour"},
    ):
        symbols = np.zeros((1, 1), np.int32)
        bad = file.write(dataclasses.replace(header, **change), symbols, code)
        with pytest.raises(StarflowError):
            sf.codec.decompress(pipe, bad)
    for bad in (b"", b"SFC", b"PK" + data, b"SFC\x01" + data[4:], bytes(17 << 20)):
        with pytest.raises(CodecError):
            sf.codec.decompress(pipe, bad)


def test_header_numbers_round_trip():
    header = file.Header(b"\x00\x01\x02\x03", 65535, "4-bit", 65535, 20, 2**32 - 1, 300, 1, "ü")
    symbols = np.arange(6, dtype=np.int32).reshape(2, 3) - 3
    back, code = file.read(file.write(header, symbols, b"code"))
    assert dataclasses.replace(back, symbols_check=0) == header and code == b"code"
    assert file.matches(back, code, symbols) and not file.matches(back, code, symbols + 1)


def test_wrong_options_are_named(colours):
    pipe = sf.load(colours)
    for options, word in (
        ({"step": 0}, "step is 0"),
        ({"step": float("nan")}, "step is nan"),
        ({"step": 100}, "step is 100"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(UsageError, match=word):
            sf.codec.compress(pipe, picture(pipe, 0), **options)
    with pytest.raises(UsageError, match="quality is 101"):
        sf.codec.step_of_quality(101)


def test_without_the_package_the_sentence_says_what_to_install(colours, monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)
    pipe = sf.load(colours)
    with pytest.raises(UsageError, match=r"mlx-starflow\[codec\]"):
        sf.codec.compress(pipe, picture(pipe, 0))


def test_the_commands(colours, run, tmp_path):  # noqa: F811
    pipe = sf.load(colours)
    for i in range(2):
        picture(pipe, i).save(tmp_path / f"{i}.png")
    common = ("-m", colours, "--quiet")
    made = run(
        "compress", "0.png", "-o", "a.flow", "--step", 0.1, "--prompt", "red", "--json", *common
    )
    record = json.loads(made.out)
    assert made.status == 0 and record["bytes"] == (tmp_path / "a.flow").stat().st_size
    assert 0 < record["ideal_bytes"] <= record["bytes"] and record["psnr"] > 20
    back = run("decompress", "a.flow", "-o", "back.png", *common)
    assert back.lines == ["back.png"]
    expected = sf.codec.decompress(pipe, (tmp_path / "a.flow").read_bytes())
    assert Image.open(tmp_path / "back.png").tobytes() == expected.tobytes()
    several = run("compress", "0.png", "1.png", "-o", "small", "--no-check", *common)
    assert several.lines == ["small/0.flow", "small/1.flow"]
    folder = run("decompress", "small", "-o", "out", "--json", *common)
    assert [f["path"] for f in json.loads(folder.out)["files"]] == ["out/0.png", "out/1.png"]
    (tmp_path / "bad.flow").write_bytes((tmp_path / "a.flow").read_bytes()[:-1])
    bad = run("decompress", "bad.flow", *common)
    assert bad.status == 1 and "bad.flow" in bad.err and not (tmp_path / "bad.png").exists()
    for wrong in (("--step", 1, "--quality", 3), ("-o", "x.png"), ("--step", "nan")):
        assert run("compress", "0.png", *wrong, *common).status == 2


def test_one_broken_picture_does_not_lose_the_others(colours, run, tmp_path):  # noqa: F811
    pipe = sf.load(colours)
    for i in range(2):
        picture(pipe, i).save(tmp_path / f"{i}.png")
    (tmp_path / "01.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    (tmp_path / "z.png").write_bytes(b"none")
    common = ("--no-check", "-m", colours)
    images = ("0.png", "01.png", "1.png", "z.png")
    made = run("compress", *images, "-o", "small", *common)
    assert made.lines == ["small/0.flow", "small/1.flow"] and made.status == 1
    assert "Warning: 01.png" in made.err and "Warning: z.png" in made.err
    assert made.err.endswith("2 of 4 pictures could not be compressed.\n")
    told = run("compress", *images, "-o", "again", "--json", *common)
    about = json.loads(told.out)
    assert told.status == 1 and [f["source"] for f in about["files"]] == ["0.png", "1.png"]
    assert [f["path"] for f in about["failed"]] == ["01.png", "z.png"]
    none = run("compress", "01.png", "z.png", "-o", "none", *common)
    assert none.status == 1 and not (tmp_path / "none").exists()
    (tmp_path / "small" / "00.flow").write_bytes(b"none")
    back = run("decompress", "small", "-o", "out", "-m", colours)
    assert back.lines == ["out/0.png", "out/1.png"] and back.status == 1
    assert "Warning: small/00.flow" in back.err
    assert back.err.endswith("1 of 3 files could not be decompressed.\n")
    single = run("compress", "z.png", *common)
    assert single.status == 1 and single.err.count("\n") == 1 and "z.png" in single.err
