"""Measure all tables of docs/compression.md:

python -m recipes.default_model.compression --page docs/compression.md \
    --plot docs/images/rate-distortion.png

The tables are printed in Markdown; with --page they are also written between the markers of the
page. The paintings have seeds that are not used elsewhere. The rows of the curves are stored in
--folder, so that an interrupted run can continue.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from mlx_starflow.device.machine import this_machine
from mlx_starflow.pipeline import Pipeline, load

from ..known import paint_known
from ..likelihood.__main__ import write_into
from . import damage, plot, rate, rivals

SEED = 9_000_000  # first seed of the paintings
PARTS = ("rate", "captions", "other", "round-trips", "elsewhere", "mutations")
QUALITIES = (25.0, 25.5, 26.0, 26.5, 27.0, 27.5, 28.0)  # dB
FOLDER = Path("recipes/default_model/runs/compression")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a bundle; default: the embedded model")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--count", type=int, default=200, help="paintings of the curves")
    parser.add_argument(
        "--some", type=int, default=48, help="paintings for captions, other kinds and elsewhere"
    )
    parser.add_argument("--round-trips", type=int, default=500)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument(
        "--repaired", type=int, default=1_000, help="number of mutations with a correct checksum"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="stored results of long parts")
    parser.add_argument("--page", type=Path, help="also write the tables into this page")
    parser.add_argument("--plot", type=Path, help="also draw the curves (needs matplotlib)")
    options = parser.parse_args()
    with load(options.model) as pipe:
        for part in options.part or PARTS:
            began = time.perf_counter()
            for mark, rows in measure(part, pipe, options).items():
                text = table(rows)
                print(f"\n### {mark}\n\n{text}", flush=True)
                if options.page:
                    write_into(options.page, mark, text)
            if options.page:
                write_into(options.page, f"weights of {part}", weights(pipe))
            say(f"{part}: {time.perf_counter() - began:.0f} s")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table with a row for each key and a column for each key of any row. Whole numbers
    and numbers of 100 or more are printed without decimals."""
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [_cell(row[c]) if c in row else "" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def weights(pipe: Pipeline) -> str:
    machine = this_machine()
    return (
        f"(Weights `{pipe.fingerprint}`; {machine.device}, {machine.architecture}, "
        f"{machine.blas}, mlx {machine.mlx}, {machine.date[:10]}.)"
    )


def measure(part: str, pipe: Pipeline, options: argparse.Namespace) -> dict[str, dict]:
    if part == "rate":
        paintings = paint_known(pipe, options.count, SEED)[0]
        rows = rate.measured(pipe, paintings, rate.STEPS, options.folder / "rate.jsonl", say)
        return {"steps": rate.by_step(rows), "equal": at_equal_quality(rows, paintings, options)}
    if part == "captions":
        paintings, captions, _ = paint_known(pipe, options.some, SEED)
        return {part: rate.with_captions(pipe, paintings, captions, (0.25, 0.5))}
    if part == "other":
        return {
            part: damage.other_pictures(
                pipe, paint_known(pipe, options.some // 2, SEED + 1)[0], 0.25
            )
        }
    if part == "round-trips":
        paintings = paint_known(pipe, options.round_trips, SEED + 2)[0]
        return {part: {"step 0.25": damage.round_trips(pipe, paintings, 0.25, say)}}
    if part == "elsewhere":
        paintings = paint_known(pipe, options.some, SEED + 4)[0]
        return {part: damage.elsewhere(pipe, paintings, 0.35)}
    paintings = paint_known(pipe, 20, SEED + 3)[0]
    found = damage.mutations(pipe, paintings, options.mutations, options.repaired, say)
    return {part: {"all": found}}


def at_equal_quality(rows: list[dict], paintings, options) -> dict[str, dict[str, float]]:
    """Bytes of each format at equal PSNR; "AVIF" is the smaller of 4:2:0 and 4:4:4."""
    own = [(row["bytes"], row["PSNR, dB"]) for row in rate.by_step(rows).values()]
    curves = {"mlx-starflow": own}
    for name in rivals.FORMATS:
        say(f"{name} ...")
        curves[name] = rivals.curve(name, paintings)
    if options.plot:
        plot.plot(curves, rivals.png_bytes(paintings), options.plot)
    result = {}
    for quality in QUALITIES:
        at = {name: rivals.bytes_at(points, quality) for name, points in curves.items()}
        avif = min((at["AVIF"], at["AVIF 4:4:4"]), key=lambda v: v if v == v else float("inf"))
        ours = at["mlx-starflow"]
        result[f"{quality:g} dB"] = {
            "mlx-starflow": ours, "WebP": at["WebP"], "AVIF": avif, "JPEG": at["JPEG"],
            "over WebP": ours / at["WebP"], "over AVIF": ours / avif,
            "over JPEG": ours / at["JPEG"],
        }  # fmt: skip
    return result


if __name__ == "__main__":
    main()
