"""``mlx-starflow generate``: draws the batches of a job, shows progress and saves the pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image

from ..editing.selection import advantages
from ..errors import UsageError
from ..flow.split import Split
from ..generation.events import BlockDone, BlockProgress, Event, Finished, Preview
from ..generation.noise_file import noise_record
from ..generation.result import Result
from ..hub.known import DEFAULT
from ..pictures.arrays import write_whole
from ..pictures.metadata import save_picture
from ..pictures.sheet import contact_sheet
from ..pipeline import Pipeline, load
from . import outputs
from .console import Console, Progress
from .fetch import Fetching
from .job import Batch, Job
from .notice import introduce
from .prompts import every_prompt, tell_prompts, tell_random_seeds
from .results import advice_for, interrupted, warn_not_converged, warn_other_weights
from .resume import left_to_draw
from .uncertainty import add_uncertainty


@dataclass
class Report:
    """What has been finished so far."""

    begun: bool = False  # whether the first step of the first batch is done
    records: list[dict[str, Any]] = field(default_factory=list)  # one per picture
    files: list[str] = field(default_factory=list)  # sheets, latents and steps
    pictures: list[Image.Image] = field(default_factory=list)  # only for a contact sheet

    def to_dict(self, seconds: float) -> dict[str, Any]:
        """The object that ``--json`` prints. ``seconds``: of the whole command."""
        return {"images": self.records, "files": self.files, "seconds": round(seconds, 3)}


def check(job: Job) -> None:
    """Check the output paths before the work begins. Errors: UsageError, ImageError."""
    outputs.check_output(job.output)
    if job.save_latents is not None:
        outputs.check_array_path(job.save_latents, "--save-latents")
        outputs.check_file(job.save_latents)
    if job.stepwise is not None:
        if job.stepwise.is_file():
            raise UsageError(f"{job.stepwise} is a file; expected a directory for the steps.")
        outputs.check_directory(job.stepwise)


def run(job: Job, console: Console, loaded: Pipeline | None = None) -> Report:
    """Draw and save all pictures of a job. ``loaded``: a pipeline to use; None: load the job's
    model. Errors: those of ``Pipeline.stream``; Interrupted, which says what was finished."""
    check(job)
    report = Report()
    try:
        with pipeline_of(job, console, loaded) as pipe:
            check_class(job, pipe)
            warn_other_weights(job, pipe, console, "picture")
            tell_prompts(pipe, every_prompt(job), console, cuts=False)
            left = left_to_draw(job, pipe)
            progress = Progress(console, len(left))
            for number in left:
                draw_batch(job, job.batches[number], pipe, console, progress.follow, report)
            if job.model in (None, DEFAULT):
                introduce(pipe, console)
        ended = [(r["converged"], r["residual"]) for r in report.records]
        warn_not_converged(ended, console, advice_for(job.options))
        if job.grid:
            save_grid(job, report)
    except KeyboardInterrupt:
        raise interrupted([r["path"] for r in report.records], job.pictures, "picture") from None
    finally:
        console.clear()
    return report


def draw_batch(
    job: Job,
    batch: Batch,
    pipe: Pipeline,
    console: Console,
    follow: Callable[[Event], None],
    report: Report,
) -> None:
    """Draw one batch, save it, and add it to ``report``. ``follow`` is called with every event."""
    result = _draw(job, batch, pipe, console, follow, report)
    if job.best_of:
        batch = _best(batch, pipe, result, console)
    saved = len(report.records)
    _save(job, batch, result, report)
    if job.uncertainty:
        add_uncertainty(pipe, result, batch, report.records[saved:], report.files)


def save_grid(job: Job, report: Report) -> None:
    """Save the contact sheet of all pictures."""
    sheet = contact_sheet(report.pictures)
    path = job.output.with_name(f"{job.output.stem}_grid{job.output.suffix}")
    report.files.append(str(save_picture(sheet, path, overwrite=False)))


def pipeline_of(
    job: Job, console: Console, loaded: Pipeline | None, split: Split | None = None
) -> contextlib.AbstractContextManager[Pipeline]:
    if loaded is not None:
        return contextlib.nullcontext(loaded)
    return load(
        job.model,
        job.dtype,
        job.quantize,
        job.low_ram,
        Fetching(console),
        adapters=job.adapters,
        split=split,
    )


def _best(batch: Batch, pipe: Pipeline, result: Result, console: Console) -> Batch:
    """The batch with ``keep`` set to its best picture, and a message why."""
    scores = advantages(pipe, result)
    best = int(scores.argmax())
    console.say(
        f"Kept seed {batch.seeds[best]}: the prompt adds {scores[best]:+.1f} nats to its "
        f"log-likelihood, the most of {len(scores)} (least: {scores.min():+.1f})."
    )
    record = {"seeds": list(batch.seeds), "scores": [round(float(s), 3) for s in scores]}
    return dataclasses.replace(batch, keep=(best,), best_of=record)


def _draw(
    job: Job,
    batch: Batch,
    pipe: Pipeline,
    console: Console,
    follow: Callable[[Event], None],
    report: Report,
) -> Result:
    noise, options = job.noise, job.options
    if job.start is not None:
        noise, options = job.start.noise(pipe, batch.prompts, batch.seeds, options, console)
    events = pipe.stream(
        cast("list[str | int]", list(batch.prompts)),
        list(batch.seeds),
        noise=noise,
        previews=job.stepwise is not None,
        **options,
    )
    steps: list[list[Image.Image]] = []
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, BlockProgress | BlockDone) and not report.begun:
                report.begun = True  # the request was valid; the rest may take long
                tell_random_seeds(job, console)
            follow(event)
            for warning in getattr(event, "warnings", ()):
                console.say(f"Warning: {warning}")
            if isinstance(event, Preview):
                steps.append(pipe.decode(event.latents))
            if isinstance(event, Finished):
                result = event.result
    if job.stepwise is not None:
        steps.append(result.images)
        report.files += _save_steps(job.stepwise, batch, steps)
    return result


def _save(job: Job, batch: Batch, result: Result, report: Report) -> None:
    for i in batch.keep or range(len(batch.seeds)):
        metadata = {**result.metadata_of(i), **job.carried}
        if job.start is not None:
            metadata |= job.start.record
        if batch.best_of is not None:
            metadata["best_of"] = batch.best_of
        if job.noise is not None or job.start is not None:
            metadata["noise"] = noise_record(job.noise_file, np.array(result.noise))
        path = outputs.name(job.output, batch.seeds[i], batch.prompt_number, job.pictures > 1)
        path = save_picture(
            result.images[i], path, metadata if job.embed else None, overwrite=False
        )
        report.records.append({"path": str(path), **metadata})
        if job.grid:
            report.pictures.append(result.images[i])
        if job.sidecar:
            text = json.dumps(metadata, indent=2) + "\n"
            beside = write_whole(path.with_suffix(".json"), _writer(text), False)
            if beside != path.with_suffix(".json"):  # a file of this name existed
                report.files.append(str(beside))
    if job.save_latents is not None:
        several = len(job.batches) > 1
        path = outputs.name(job.save_latents, batch.seeds[0], batch.prompt_number, several)
        arrays = {"latents": result.latents, "noise": result.noise, "denoised": result.denoised}
        path = outputs.save_arrays(path, result.metadata, **arrays)
        report.files.append(str(path))


def _save_steps(folder: Path, batch: Batch, steps: list[list[Image.Image]]) -> Iterator[str]:
    """Save the picture after each block, the finished one, and a strip of all. Yields the paths."""
    for i in batch.keep or range(len(batch.seeds)):
        prompt = f"prompt_{batch.prompt_number}_" if batch.prompt_number is not None else ""
        stem = f"{prompt}seed_{batch.seeds[i]}"
        row = [pictures[i] for pictures in steps]
        for number, picture in enumerate(row, start=1):
            path = folder / f"{stem}_step_{number}_of_{len(row)}.png"
            yield str(save_picture(picture, path, overwrite=False))
        strip = contact_sheet(row, columns=len(row))
        yield str(save_picture(strip, folder / f"{stem}_strip.png", overwrite=False))


def check_class(job: Job, pipe: Pipeline) -> None:
    """Raise a UsageError for ``--seed 7 3`` without a prompt if 3 may be meant as a class."""
    if not job.swallowed or not pipe.flow_config.num_classes:
        return
    *first, last = job.swallowed
    seeds = " ".join(map(str, first))
    every = " ".join(f"--seed {n}" for n in job.swallowed)
    raise UsageError(
        f"--seed {seeds} {last}: is {last} the class to draw, or another seed? For the class write "
        f"generate {last} --seed {seeds}; for seeds without a class write {every}."
    )


def _writer(text: str) -> Callable[[BinaryIO], object]:
    return lambda file: file.write(text.encode())
