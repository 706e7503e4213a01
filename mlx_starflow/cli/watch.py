"""``mlx-starflow watch``: anomaly detection with a chosen false-alarm rate."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ..errors import ImageError, Interrupted, UsageError
from ..files.counted import counted
from ..pictures.heatmap import heatmap
from ..pictures.metadata import save_picture
from ..pictures.opening import SUFFIXES
from ..pictures.read import Picture, pictures_in
from ..pipeline import Pipeline
from ..watch import Finding, Reference, check, fit, read_reference, write_reference
from ..watch.reference import DRAWS, MOST_DRAWS
from . import options as o
from .attempts import Attempts
from .console import Console
from .failures import NOTHING, interruptible
from .flags import with_flags
from .help import SectionedCommand
from .options import HOW, OUTPUT, WHAT, option
from .outputs import check_directory, check_output
from .picture_options import Fit, FitOption, Images, PromptOption, open_model, take_picture
from .prompts import check_quotes, tell_prompts

ANOMALOUS = 3  # exit status of ``check`` if a picture is unusual
FIT_EPILOG = """\b
Examples:
  mlx-starflow watch fit ordinary/ --output normal.json

Give some dozens of ordinary pictures, all of the model's size (or use --fit). A false-alarm rate
of 1 % needs at least 99 of them, 5 % at least 20.
"""
CHECK_EPILOG = """\b
Examples:
  mlx-starflow watch check new.png --reference normal.json
  mlx-starflow watch check incoming/ --reference normal.json --json --map where.png
  mlx-starflow watch check incoming/ --reference normal.json --follow

Exit status: 0 if all pictures are ordinary, 3 if one is not, 1 if one of several pictures cannot be
read (the others are checked); for other errors as in other commands. The p-value of an ordinary
picture is 0.05 or less with probability at most 5 %, over the random choice of the reference
pictures and the picture.
"""

watch = typer.Typer(
    help="Find unusual pictures, and where in them, with a chosen false-alarm rate.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[
    list[Path],
    typer.Argument(
        metavar="FOLDER...", rich_help_panel=WHAT, help="Ordinary pictures, or folders of them.",
        show_default=False,
    ),
]  # fmt: skip
ReferenceOut = Annotated[
    Path,
    option("--output", "-o", panel=OUTPUT, metavar="FILE", help="The .json file for the reference. "
            "Never overwritten (_1, _2 is added). Default: normal.json."),
]  # fmt: skip
ReferenceIn = Annotated[
    Path,
    option("--reference", "-r", panel=WHAT, metavar="FILE", help="A file made by watch fit."),
]
Draws = Annotated[
    int,
    option("--draws", panel=HOW, metavar="K", min=1, max=MOST_DRAWS,
            help=f"Number of noise draws. Default: {DRAWS}."),
]  # fmt: skip
Seed = Annotated[
    int, option("--seed", panel=HOW, metavar="N", min=0, help="Seed of the noise. Default: 0.")
]
FalseAlarms = Annotated[
    float,
    option("--false-alarms", panel=HOW, metavar="A", help="False-alarm rate: the share of ordinary "
            "pictures that may be reported as unusual. Default: 0.05."),
]  # fmt: skip
Map = Annotated[
    Path | None,
    option("--map", panel=OUTPUT, metavar="FILE", help="Also save a map of where the picture is "
            "unusual. With several pictures: FILE_name."),
]  # fmt: skip
Follow = Annotated[
    bool,
    option("--follow", panel=WHAT, help="Keep watching the folders for new pictures until Ctrl-C; "
            "prints one line per picture, JSON with --json."),
]  # fmt: skip
Interval = Annotated[
    float,
    option("--interval", panel=WHAT, metavar="S", min=0.05, help="With --follow: seconds between "
            "checks for new pictures. Default: 1."),
]  # fmt: skip


@watch.command("fit", epilog=FIT_EPILOG, cls=SectionedCommand)
@with_flags
def fit_command(
    folder: Folder,
    prompt: PromptOption = "",
    draws: Draws = DRAWS,
    seed: Seed = 0,
    fit_: FitOption = Fit.refuse,
    output: ReferenceOut = Path("normal.json"),
    *,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Make a reference from ordinary pictures."""
    console = Console(messages.quiet)
    if output.suffix != ".json":
        raise UsageError(f"--output {output}: expected a name ending in .json.")
    check_directory(output.parent)
    check_quotes(folder, [prompt])
    paths = pictures_in(folder)
    with interruptible(lambda: NOTHING), open_model(choice, console) as pipe:
        tell_prompts(pipe, [prompt], console)
        attempts = Attempts(paths, console)
        taken = list(attempts.each(lambda path: take_picture(pipe, path, fit_, console)))
        if not taken:
            attempts.finish()
        ratios = {ratio for _, ratio in taken}
        if len(ratios) > 1:
            raise UsageError(
                f"The pictures have several shapes ({', '.join(sorted(ratios))}); expected one."
            )
        total = len(taken)
        reference = fit(
            pipe, [p for p, _ in taken], ratios.pop(), prompt, draws, seed,
            lambda done: console.draw("measure", f"{done}/{total} pictures", done / total, None),
        )  # fmt: skip
        console.clear()
        written = write_reference(output, reference)
    console.say(
        f"Reference of {total} pictures; the smallest possible p-value is {1 / (total + 1):.2g}. "
        "The actual false-alarm rate varies from reference to reference, less with more pictures."
    )
    about = {"path": str(written), "pictures": total, **attempts.about()}
    typer.echo(json.dumps(about) if messages.json_ else written)
    attempts.finish()


@watch.command("check", epilog=CHECK_EPILOG, cls=SectionedCommand)
@with_flags
def check_command(
    images: Images,
    reference: ReferenceIn,
    false_alarms: FalseAlarms = 0.05,
    fit_: FitOption = Fit.refuse,
    map_: Map = None,
    follow: Follow = False,
    interval: Interval = 1.0,
    *,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Compare pictures with a reference: p-value, most unusual statistic, and where."""
    console = Console(messages.quiet)
    if map_ is not None:
        check_output(map_)
    known = read_reference(reference)
    if follow and not all(path.is_dir() for path in images):
        raise UsageError("--follow needs folders, not pictures.")
    paths = [] if follow else pictures_in(images)
    attempts = Attempts(paths, console)
    records: list[dict[str, Any]] = []
    interrupted = False
    try:
        with open_model(choice, console) as pipe:
            task = _Task(pipe, known, false_alarms, fit_, map_, console)
            if follow:
                _follow(task, images, interval, messages.json_)
                return
            for record in attempts.each(lambda path: task.record(path, len(paths) > 1), "check"):
                records.append(record)
                if not messages.json_:
                    typer.echo(_line(record))
    except KeyboardInterrupt:
        console.clear()
        interrupted = True
    if messages.json_ and records:
        about: dict[str, Any] = {"false_alarms": false_alarms, "images": records}
        if len(paths) == 1:
            about = records[0] | about
        typer.echo(json.dumps(about | attempts.about()))
    if interrupted:
        done = f"after {len(records)} of {counted(len(paths), 'picture')}" if paths else "watching"
        raise Interrupted(f"Interrupted {done}; the results are above.")
    attempts.finish()
    if any(record["anomalous"] for record in records):
        raise typer.Exit(ANOMALOUS)


class _Task:
    """Compares one picture after another with the same reference."""

    def __init__(
        self,
        pipe: Pipeline,
        reference: Reference,
        false_alarms: float,
        fit_: Fit,
        map_: Path | None,
        console: Console,
    ) -> None:
        self._pipe, self._reference, self._false_alarms = pipe, reference, false_alarms
        self._fit, self._map, self._console = fit_, map_, console

    def record(self, path: Path, several: bool) -> dict[str, Any]:
        """Check one picture and save its map. Returns the object for ``--json``."""
        picture, _ = take_picture(self._pipe, path, self._fit, self._console)
        (finding,) = check(self._pipe, self._reference, [picture], self._false_alarms)
        written = None
        if self._map is not None:
            place = self._map
            if several:
                place = place.with_name(f"{place.stem}_{path.stem}{place.suffix}")
            written = str(_save_map(place, picture, finding))
        return _record(finding, written)


def _follow(task: _Task, folders: list[Path], interval: float, as_json: bool) -> None:
    """Check pictures that appear in the folders, once their size no longer changes."""
    done: set[Path] = set()
    seen: dict[Path, int] = {}
    while True:
        found = [p for f in folders for p in sorted(f.iterdir()) if p.suffix.lower() in SUFFIXES]
        for path in found:
            if path in done or not path.is_file():
                continue
            size = path.stat().st_size
            if seen.get(path) != size or not size:
                seen[path] = size
                continue
            done.add(path)
            try:
                record = task.record(path, True)
            except ImageError as error:
                record = {"path": str(path), "error": str(error)}
            typer.echo(json.dumps(record) if as_json else _line(record))
        time.sleep(interval)


def _save_map(path: Path, picture: Picture, finding: Finding) -> Path:
    """Save a map of sqrt(distance / threshold): values above 1 are significant."""
    threshold = finding.threshold if np.isfinite(finding.threshold) else finding.map.max()
    values = np.sqrt(finding.map / threshold)
    painted = heatmap(picture.image, values, "of threshold", (0.0, max(2.0, float(values.max()))))
    return save_picture(painted, path, overwrite=False)


def _record(finding: Finding, map_path: str | None) -> dict[str, Any]:
    threshold = finding.threshold if np.isfinite(finding.threshold) else None
    return {
        "path": finding.path,
        "p_value": finding.p_value,
        "anomalous": finding.anomalous,
        "statistic": finding.statistic,
        "statistics": {
            name: {"score": score, "p_value": p} for name, (score, p) in finding.statistics.items()
        },
        "map": {
            "path": map_path,
            "values": np.round(finding.map, 3).tolist(),
            "threshold": threshold,
            "regions": [{"box": list(r.box), "value": r.value} for r in finding.regions],
        },
    }


def _line(record: dict[str, Any]) -> str:
    if "error" in record:
        return f"{record['path']}: {record['error']}"
    text = f"{record['path']}: p = {record['p_value']:.3g}, "
    if not record["anomalous"]:
        return text + "ordinary"
    text += f"UNUSUAL by {record['statistic']}"
    regions = record["map"]["regions"]
    if regions:
        left, top, right, bottom = regions[0]["box"]
        text += f"; most at x {left}-{right}, y {top}-{bottom}"
    return text
