"""``mlx-starflow generate`` over several ranks: batches are handed out, rank 0 saves everything.

Every rank draws a batch into a temporary directory, with the code that one process uses, and sends
the files to rank 0, which gives them their places.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL import Image

from ..generation.events import Event
from ..hub.known import DEFAULT
from ..pictures.arrays import write_whole
from ..pictures.opening import picture_in
from ..pipeline import Pipeline
from ..ranks import Group, agree, spread
from ..ranks.handing_out import Made
from .console import Console, Progress
from .drawing import Report, check, check_class, draw_batch, pipeline_of, save_grid
from .job import Batch, Job
from .notice import introduce
from .prompts import every_prompt, tell_prompts, tell_random_seeds
from .results import interrupted, warn_not_converged, warn_other_weights
from .resume import distinct_names, left_to_draw

PICTURES, LATENTS, STEPS, SHEET = "pictures", "latents", "steps", "sheet"


@dataclass(frozen=True)
class Measurements:
    """What the sampler uses, by size of picture and batch, so that all ranks use the same."""

    found: dict[str, dict[str, Any]]  # windows and tolerance

    def of(self, job: Job, pipe: Pipeline, batch: Batch) -> dict[str, Any]:
        """Options for a batch."""
        return self.found.get(_size_of(job, pipe, batch), {})


def run_over_ranks(job: Job, console: Console, group: Group) -> Report:
    """Draw all pictures of a job on all ranks. Returns what was saved, on ranks other than 0
    nothing. Errors as ``drawing.run``."""
    kept = _Kept(job, console)
    try:
        if group.rank == 0:
            check(job)
        with pipeline_of(job, console, None) as pipe, workplace(group) as folder:
            agree(group, facts_of(job, pipe))
            job, left, measured = planned(job, pipe, group, console)
            kept.job, kept.progress = job, Progress(console, len(left))
            drawing = _Drawing(job, pipe, group, kept.progress, folder, measured, console)
            spread(
                group,
                len(left),
                lambda item: drawing.draw(left[item]),
                lambda item, made: kept.keep(left[item], made),
                in_order=not distinct_names(job),
            )
            if group.rank == 0 and job.model in (None, DEFAULT):
                introduce(pipe, console)
        report = kept.report()
        warn_not_converged([(r["converged"], r["residual"]) for r in report.records], console)
        if job.grid and group.rank == 0:
            save_grid(job, report)
        return report
    except KeyboardInterrupt:
        done = [r["path"] for r in kept.report().records]
        raise interrupted(done, job.pictures, "picture") from None
    finally:
        console.clear()


def facts_of(job: Job, pipe: Pipeline) -> dict[str, str]:
    """What the ranks must agree on before they work on a job."""
    noise = "" if job.noise is None else hashlib.sha256(job.noise.tobytes()).hexdigest()[:16]
    image = None if job.start is None else [str(job.start.path), job.start.strength]
    flags = {
        "options": job.options, "dtype": job.dtype, "quantize": job.quantize,
        "best_of": job.best_of, "uncertainty": job.uncertainty, "sidecar": job.sidecar,
        "embed": job.embed, "grid": job.grid, "stepwise": job.stepwise is not None,
        "latents": job.save_latents is not None, "noise": noise, "image": image,
        "carried": job.carried,
    }  # fmt: skip
    parts = [pipe.fingerprint_of(name) for name in ("flow", "vae", "text_encoder")]
    adapters = [[record["weights"], record["scale"]] for record in pipe.adapters]
    return {
        "adapters": json.dumps(adapters),
        "model": f"{pipe.config.name} ({' '.join(p for p in parts if p)})",
        "settings": json.dumps(flags, sort_keys=True),
    }


def elsewhere(job: Job, folder: Path) -> Job:
    """The job with all files in a directory."""
    return dataclasses.replace(
        job,
        output=folder / PICTURES / job.output.name,
        save_latents=job.save_latents and folder / LATENTS / job.save_latents.name,
        stepwise=job.stepwise and folder / STEPS,
    )


@contextlib.contextmanager
def workplace(group: Group) -> Iterator[Path]:
    """A directory for what this rank draws; removed at the end, also by a failure of another
    rank."""
    with tempfile.TemporaryDirectory(prefix="mlx-starflow-") as name:
        group.at_end(lambda: shutil.rmtree(name, ignore_errors=True))
        yield Path(name)


def planned(
    job: Job, pipe: Pipeline, group: Group, console: Console, measuring: bool = True
) -> tuple[Job, list[int], Measurements]:
    """Rank 0's batches on all ranks, which of them are to be drawn, and its measurements."""
    plan: dict[str, Any] = {}
    if group.rank == 0:
        check_class(job, pipe)
        warn_other_weights(job, pipe, console, "picture")
        tell_prompts(pipe, every_prompt(job), console, cuts=False)
        left = left_to_draw(job, pipe)
        wanted = [job.batches[n] for n in left] if measuring else []
        measured = _measurements(job, pipe, wanted, console)
        listed = [dataclasses.asdict(batch) for batch in job.batches]
        plan = {"batches": listed, "left": left, "measured": measured}
        tell_random_seeds(job, console)
    plan = group.share(plan)
    batches = [
        Batch(
            tuple(b["prompts"]),
            tuple(b["seeds"]),
            b["prompt_number"],
            None if b["keep"] is None else tuple(b["keep"]),
        )
        for b in plan["batches"]
    ]
    return dataclasses.replace(job, batches=batches), plan["left"], Measurements(plan["measured"])


def _measurements(
    job: Job, pipe: Pipeline, batches: list[Batch], console: Console
) -> dict[str, dict[str, Any]]:
    """``Measurements.found``, measured here."""
    measured: dict[str, dict[str, Any]] = {}
    for batch in batches:
        key = _size_of(job, pipe, batch)
        if key not in measured:
            options = job.options
            if job.start is not None:
                _, options = job.start.noise(pipe, batch.prompts, batch.seeds, options, console)
            measured[key] = pipe.measured(list(batch.prompts), list(batch.seeds), **options)
    return measured


def _size_of(job: Job, pipe: Pipeline, batch: Batch) -> str:
    prompts = cast("list[str | int]", list(batch.prompts))
    settings = pipe.settings(prompts, list(batch.seeds), **job.options)
    return f"{settings.width}x{settings.height}x{len(batch.seeds)}"


class _Drawing:
    """Draws batches into a directory of its own."""

    def __init__(
        self,
        job: Job,
        pipe: Pipeline,
        group: Group,
        progress: Progress,
        folder: Path,
        measured: Measurements,
        console: Console,
    ) -> None:
        self._said = io.StringIO()
        self._console = Console(console.quiet, console.verbose, self._said)
        self._pipe, self._group, self._progress = pipe, group, progress
        self._folder, self._measured = folder, measured
        self._job = elsewhere(job, folder)

    def draw(self, number: int) -> Made:
        """Draw a batch; what was made holds its records, its files and what is to be said."""
        batch, report = self._job.batches[number], Report(begun=True)
        own = self._measured.of(self._job, self._pipe, batch)
        job = dataclasses.replace(self._job, options={**self._job.options, **own})
        draw_batch(job, batch, self._pipe, self._console, self._follow, report)
        paths = [record["path"] for record in report.records]
        paths += [str(p) for p in sorted(self._folder.rglob("*")) if p.is_file()]
        paths = list(dict.fromkeys(paths))
        blobs = [Path(path).read_bytes() for path in paths]
        for path in paths:
            Path(path).unlink()
        names = [Path(path).relative_to(self._folder).parts for path in paths]
        for picture in report.pictures:
            content = io.BytesIO()
            picture.save(content, format="PNG")
            names.append((SHEET, ""))
            blobs.append(content.getvalue())
        said = self._said.getvalue().splitlines()
        self._said.seek(0)
        self._said.truncate()
        data = {"records": report.records, "files": report.files, "paths": paths,
                "names": [list(n) for n in names], "said": said}  # fmt: skip
        return Made(json.loads(json.dumps(data)), tuple(blobs))

    def _follow(self, event: Event) -> None:
        self._group.step()
        if self._group.rank == 0:
            self._progress.follow(event, counting=False)


class _Kept:
    """What rank 0 has saved, by the number of the batch."""

    def __init__(self, job: Job, console: Console) -> None:
        self.job, self._console = job, console
        self.progress: Progress | None = None
        self._records: dict[int, list[dict[str, Any]]] = {}
        self._files: dict[int, list[str]] = {}
        self._pictures: dict[int, list[Image.Image]] = {}
        self._lock = threading.Lock()

    def report(self) -> Report:
        """All of it in the order of the job."""
        with self._lock:
            order = sorted(self._records)
            return Report(
                True,
                [r for n in order for r in self._records[n]],
                [f for n in order for f in self._files[n]],
                [p for n in order for p in self._pictures[n]],
            )

    def keep(self, number: int, made: Made) -> None:
        """Save the files of a batch. Errors: ImageError if one cannot be written."""
        data, places = made.data, dict[str, str]()
        stems: dict[str, str] = {}
        pictures: list[Image.Image] = []
        taken = []
        shown = {record["path"] for record in data["records"]}
        for i, (kind, name) in enumerate(data["names"]):
            if kind == SHEET:
                pictures.append(picture_in(made.blobs[i], name))
                continue
            path = data["paths"][i]
            final = self._folder(kind) / name
            if kind == PICTURES and path not in shown:
                stem = next(s for s in sorted(stems, key=len, reverse=True) if name.startswith(s))
                final = final.with_name(stems[stem] + name[len(stem) :])
            written = write_whole(final, _writer(made.blobs[i]), overwrite=False)
            if path in shown:
                stems[Path(path).stem] = written.stem
            elif path not in data["files"] and written != final:
                taken.append(str(written))  # settings beside the picture: the name was not free
            places[path] = str(written)
        for line in data["said"]:
            self._console.say(line)
        with self._lock:
            self._records[number] = [_placed(r, places) for r in data["records"]]
            self._files[number] = [places[f] for f in data["files"]] + taken
            self._pictures[number] = pictures
        if self.progress is not None:
            self.progress.count()

    def _folder(self, kind: str) -> Path:
        if kind == STEPS and self.job.stepwise is not None:
            return self.job.stepwise
        if kind == LATENTS and self.job.save_latents is not None:
            return self.job.save_latents.parent
        return self.job.output.parent


def _placed(value: Any, places: dict[str, str]) -> Any:
    """A value for JSON with paths of the temporary directory replaced by those of the files."""
    if isinstance(value, dict):
        return {k: _placed(v, places) for k, v in value.items()}
    if isinstance(value, list):
        return [_placed(v, places) for v in value]
    return places.get(value, value) if isinstance(value, str) else value


def _writer(content: bytes) -> Any:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write
