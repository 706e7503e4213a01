"""Measure all tables of docs/likelihood.md:

python -m recipes.default_model.likelihood --judge recipes/default_model/runs/main/classifier

The tables are printed in Markdown. --output also writes them to a JSON file, --page to a page,
between the lines <!-- PART --> and <!-- end --> of each part. The paintings have seeds that were
used to train neither the model nor the judge.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path

from mlx_starflow.pipeline import load

from ..known import paint_known, read_vocabulary, scenes_and_captions
from .round_trip import round_trips
from .separation import separation
from .zero_shot import draws_and_errors, zero_shot

SEED = 7_000_000  # first seed of the paintings
PARTS = ("separation", "zero-shot", "draws", "round-trip", "best-of", "edit", "doubt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a bundle; default: the embedded model")
    parser.add_argument(
        "--judge", type=Path, help="folder of the recipe's classifier, for best-of, edit, doubt"
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--count", type=int, default=128, help="paintings for most tables")
    parser.add_argument("--prompts", type=int, default=60, help="prompts of best-of")
    parser.add_argument("--doubts", type=int, default=600, help="pictures of doubt")
    parser.add_argument("--edits", type=int, default=40)
    parser.add_argument("--draws", type=int, default=4, help="noise draws per score")
    parser.add_argument("--output", type=Path, help="also write all numbers here, as JSON")
    parser.add_argument("--page", type=Path, help="also write the tables into this page")
    options = parser.parse_args()
    found = {}
    for part in options.part or PARTS:
        began = time.perf_counter()
        found[part] = _measure(part, options)
        print(f"\n### {part}\n\n{table(found[part])}", flush=True)
        if options.page:
            write_into(options.page, part, table(found[part]))
        print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        if options.output:
            options.output.write_text(json.dumps(found, indent=1) + "\n")


def _measure(part: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    n, guidance_caption = options.count, "a fox in snow"
    if part == "round-trip":
        with load(options.model) as pipe:
            guidance = pipe.config.defaults.guidance
            images, _, _ = paint_known(pipe, 4, SEED + 3)
        return round_trips(options.model, images, guidance_caption, guidance)
    with load(options.model) as pipe:
        if part == "separation":
            calibration, _, _ = paint_known(pipe, n, SEED + 1)
            paintings, _, _ = paint_known(pipe, n, SEED)
            return separation(pipe, calibration, paintings, options.draws)
        if part == "zero-shot":
            paintings, _, scenes = paint_known(pipe, n, SEED)
            return zero_shot(pipe, paintings, scenes, options.draws)
        if part == "draws":
            paintings, captions, _ = paint_known(pipe, 16, SEED)
            return draws_and_errors(pipe, paintings, captions, 64)
        return _judged(part, pipe, options)


def _judged(part: str, pipe, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    from ..classifier import load_classifier  # only these parts need PyTorch
    from .doubt import ranks_of_failures
    from .following import best_of, edits

    if options.judge is None:
        sys.exit(f"{part} needs --judge, the folder of the recipe's classifier.")
    judge = load_classifier(options.judge)
    words = read_vocabulary(pipe.directory)
    if part == "doubt":
        scenes, prompts = scenes_and_captions(options.doubts, words, SEED + 4, full=True)
        return ranks_of_failures(pipe, judge, prompts, scenes)
    if part == "best-of":
        scenes, prompts = scenes_and_captions(options.prompts, words, SEED, full=True)
        return best_of(pipe, judge, prompts, scenes)
    paintings, _, scenes = paint_known(pipe, 4 * options.edits, SEED + 2)
    single = [i for i, s in enumerate(scenes) if s.count == 1 and s.weather == "clear"]
    chosen = single[: options.edits]
    return edits(pipe, judge, paintings[chosen], [scenes[i] for i in chosen], draws=8)


def write_into(page: Path, part: str, text: str) -> None:
    """Replace the text between the markers of a part; exits if the page does not have them."""
    old = page.read_text()
    pattern = rf"(<!-- {part} -->\n).*?(<!-- end -->)"
    new, count = re.subn(pattern, lambda m: f"{m[1]}{text}\n{m[2]}", old, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{page} has no markers for {part}: <!-- {part} --> ... <!-- end -->")
    page.write_text(new)


def table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table with a row for each key and a column for each key of any row."""
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row[c]:.3g}" if c in row else "" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
