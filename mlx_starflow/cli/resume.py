"""``--resume``: which batches of a job are on disk already, from the settings in the pictures."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

from ..errors import ImageError, UsageError
from ..pictures.metadata import read_metadata
from ..pipeline import Pipeline
from . import outputs
from .job import Batch, Job

MEASURED = ("windows", "tolerance")  # may differ between two runs


def names_of(job: Job, batch: Batch) -> list[Path]:
    """The paths of a batch's pictures if none is taken. With --best-of one of them is written."""
    return [
        outputs.name(job.output, batch.seeds[i], batch.prompt_number, job.pictures > 1)
        for i in batch.keep or range(len(batch.seeds))
    ]


def distinct_names(job: Job) -> bool:
    """Whether no two pictures of the job ask for the same name."""
    counts = Counter(path for batch in job.batches for path in names_of(job, batch))
    return all(count == 1 for count in counts.values())


def check_resume(job: Job) -> None:
    """Errors: UsageError for flags with which --resume cannot tell what is done."""
    if job.random_seeds:
        raise UsageError("--resume needs --seed: the seeds of the pictures that are there already.")
    if not job.embed:
        raise UsageError("--resume reads the settings in the pictures; leave --no-metadata out.")
    if job.grid or job.stepwise is not None or job.save_latents is not None:
        raise UsageError(
            "--resume looks at the pictures only; leave --grid, --stepwise-image-output-dir and "
            "--save-latents out."
        )
    if not distinct_names(job):
        raise UsageError(
            f"--resume needs a name for every picture, but {job.output} gives several the same; "
            "leave {seed} out of it."
        )


def left_to_draw(job: Job, pipe: Pipeline) -> list[int]:
    """The numbers of the batches that are not all on disk, in order; without ``job.resume`` all.
    Parts of files that an ended process left beside the pictures are removed. Errors: UsageError
    for a file that is not the picture of this job."""
    if not job.resume:
        return list(range(len(job.batches)))
    left = []
    for number, batch in enumerate(job.batches):
        there = []
        for path in names_of(job, batch):
            for part in path.parent.glob(f".{path.stem}-????????.part"):
                part.unlink(missing_ok=True)
            if path.exists():
                _check(job, batch, path, pipe)
                there.append(path)
        wanted = 1 if job.best_of else len(batch.keep or batch.seeds)
        if 0 < len(there) < wanted:
            for path in there:  # exactly these pictures are drawn again
                path.unlink()
        if len(there) < wanted:
            left.append(number)
    return left


def _check(job: Job, batch: Batch, path: Path, pipe: Pipeline) -> None:
    try:
        found = read_metadata(path)
    except ImageError as error:
        raise UsageError(f"--resume: {error} Move it away, or choose another --output.") from None
    wanted: dict[str, Any] = pipe.settings(
        cast("list[str | int]", list(batch.prompts)), list(batch.seeds), **job.options
    ).to_dict()
    prompts, seeds = wanted.pop("prompts"), wanted.pop("seeds")
    wanted = {k: v for k, v in wanted.items() if k not in MEASURED and v is not None}
    wanted["weights"] = pipe.fingerprint
    at = seeds.index(found.get("seed")) if found.get("seed") in seeds else 0
    wanted |= {"prompt": prompts[at], "seed": seeds[at]}
    for key, value in wanted.items():
        if json.loads(json.dumps(value)) != found.get(key):
            raise UsageError(
                f"--resume: {path} is there, but with {key} {json.dumps(found.get(key))} instead "
                f"of {json.dumps(value)}: it is not of this job. Move it away, or choose another "
                "--output."
            )
