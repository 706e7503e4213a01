"""The work of ``mlx-starflow video``, and of ``vary`` and ``decode`` for clips: draw the clips,
show progress, and save each when it is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from ..editing.inputs import digest
from ..errors import UsageError
from ..files.fields import Fields
from ..generation.events import Finished, FramesDecoded
from ..generation.given import given_pictures
from ..generation.length import clips_of
from ..generation.noise_file import noise_record
from ..generation.result import Result
from ..pictures.clips import MP4, check_clip_path, save_clip
from ..pictures.metadata import save_picture
from ..pipeline import Pipeline, load
from . import outputs
from .console import Console, Progress
from .fetch import Fetching
from .job import Batch, Work
from .prompts import every_prompt, tell_prompts, tell_random_seeds
from .results import advice_for, interrupted, warn_not_converged, warn_other_weights

COMMAND = "video"  # stored in the settings of a clip


@dataclass(frozen=True)
class Beginning:
    """The picture or clip that the new clips begin with."""

    kind: str  # "image" | "video"
    path: Path
    pictures: tuple[Image.Image, ...]

    @property
    def record(self) -> dict[str, Any]:
        return {"kind": self.kind, "file": str(self.path), "sha256": self.digest}

    @property
    def digest(self) -> str:
        """The SHA-256 of sizes and pixels."""
        return digest(self.pictures)

    @classmethod
    def stored(cls, fields: Fields) -> Beginning:
        """Read the picture or clip that the settings of a clip name as its beginning. Errors:
        UsageError if the file no longer exists or has changed."""
        kind = fields.text("kind", one_of=("image", "video"))
        path = Path(fields.text("file", most=4096))
        if not path.exists():
            raise UsageError(
                f"The clip began with {path}, which no longer exists. Name it with --{kind}."
            )
        found = _read(kind, path)
        if found.digest != fields.text("sha256", most=64):
            raise UsageError(
                f"The clip began with {path}, whose content has changed. Name the file to begin "
                f"with, with --{kind}."
            )
        return found


def beginning(image: Path | None, video: Path | None) -> Beginning:
    """Read the picture or clip of --image or --video. Errors: UsageError, ImageError."""
    if image is not None and video is not None:
        raise UsageError("--image and --video both give the beginning; give one of them.")
    return _read("image", image) if image is not None else _read("video", cast(Path, video))


def _read(kind: str, path: Path) -> Beginning:
    if not path.exists():
        raise UsageError(f"--{kind} {path}: there is no such file.")
    pictures = given_pictures(**{"image": None, "video": None} | {kind: path})
    return Beginning(kind, path, tuple(pictures))


@dataclass(frozen=True, kw_only=True)
class Filming(Work):
    """The clips that a command draws, and the outputs to save."""

    output: Path | None
    seconds: float | None = None  # length of the clips; None: the number of frames in ``options``
    beginning: Beginning | None = None
    preview_frames: Path | None = None

    @property
    def path(self) -> Path:
        """The path of the clips."""
        return self.output or Path("clip").with_suffix(suffix_of_clips())

    @property
    def clips(self) -> int:
        return sum(len(b.keep or b.seeds) for b in self.batches)


def suffix_of_clips() -> str:
    """The format of clips by default; without PyAV it is .webp, which needs no extra."""
    return MP4 if find_spec("av") else ".webp"


@dataclass
class Report:
    """The clips and files that are finished so far."""

    records: list[dict[str, Any]] = field(default_factory=list)  # path and settings of each clip
    files: list[str] = field(default_factory=list)  # frames of --preview-frames

    def to_dict(self, seconds: float) -> dict[str, Any]:
        """The object that ``--json`` prints. ``seconds``: of the whole command."""
        return {"clips": self.records, "files": self.files, "seconds": round(seconds, 3)}


def film(work: Filming, console: Console) -> Report:
    """Draw and save all clips. Errors: those of ``Pipeline.stream``; Interrupted, which names the
    finished clips."""
    check_clip_path(work.path)
    outputs.check_file(work.path)
    if work.preview_frames is not None:
        outputs.check_directory(work.preview_frames)
    report = Report()
    try:
        with load(
            work.model, work.dtype, work.quantize, work.low_ram, Fetching(console),
            adapters=work.adapters,
        ) as pipe:  # fmt: skip
            warn_other_weights(work, pipe, console, "clip")
            options = _with_length(work, pipe)
            tell_prompts(pipe, every_prompt(work), console, cuts=False)
            progress = Progress(console, len(work.batches))
            tell_random_seeds(work, console)
            for batch in work.batches:
                result = _draw(work, batch, options, pipe, console, progress, report)
                _save(work, batch, result, report)
    except KeyboardInterrupt:
        raise interrupted([r["path"] for r in report.records], work.clips, "clip") from None
    finally:
        console.clear()
    ended = [(r["converged"], r["residual"]) for r in report.records]
    warn_not_converged(ended, console, advice_for(work.options), what="clips")
    return report


def _with_length(work: Filming, pipe: Pipeline) -> dict[str, Any]:
    """The options with the number of frames: the given one, that of --seconds, of the noise, or the
    model's. For a clip that others are started from it is that clip's."""
    if work.start is not None:
        return work.options
    clips, options = clips_of(pipe.config, pipe.flow_config), dict(work.options)
    if work.seconds is not None:
        options["frames"] = round(work.seconds * (options.get("fps") or clips.fps[0])) + 1
    if work.noise is not None and work.noise.ndim == 5:
        options.setdefault("frames", clips.shown_frames(work.noise.shape[1]))
    options.setdefault("frames", clips.frames)
    return options


def _draw(
    work: Filming,
    batch: Batch,
    options: dict[str, Any],
    pipe: Pipeline,
    console: Console,
    progress: Progress,
    report: Report,
) -> Result:
    if work.beginning is not None:
        options = options | {work.beginning.kind: _given(work.beginning)}
    prompts, noise = cast("list[str | int]", list(batch.prompts)), work.noise
    if work.start is not None:
        noise, options = work.start.noise(pipe, batch.prompts, batch.seeds, options, console)
    events = pipe.stream(prompts, list(batch.seeds), noise=noise, **options)
    with contextlib.closing(events):
        for event in events:
            progress.follow(event)
            for warning in getattr(event, "warnings", ()):
                console.say(f"Warning: {warning}")
            if isinstance(event, FramesDecoded) and work.preview_frames is not None:
                report.files += _preview(work.preview_frames, batch, event)
            if isinstance(event, Finished):
                result = event.result
    return result


def _given(beginning: Beginning) -> Any:
    return beginning.pictures[0] if beginning.kind == "image" else list(beginning.pictures)


def _preview(folder: Path, batch: Batch, event: FramesDecoded) -> Sequence[str]:
    prompt = f"prompt_{batch.prompt_number}_" if batch.prompt_number is not None else ""
    stem = f"{prompt}seed_{batch.seeds[event.clip]}_frame"
    return [
        str(save_picture(Image.fromarray(frame), folder / f"{stem}_{number:04d}.png"))
        for number, frame in enumerate(event.frames, start=event.first)
    ]


def _save(work: Filming, batch: Batch, result: Result, report: Report) -> None:
    for i in batch.keep or range(len(batch.seeds)):
        metadata = {**result.metadata_of(i), **work.carried, "command": COMMAND}
        if work.start is not None:
            metadata |= work.start.record
        if work.beginning is not None:
            metadata["given"] = work.beginning.record
        if work.noise is not None or work.start is not None:
            metadata["noise"] = noise_record(work.noise_file, np.array(result.noise))
        path = outputs.name(work.path, batch.seeds[i], batch.prompt_number, work.clips > 1)
        fps = result.settings.fps or 1
        path = save_clip(result.clips[i], path, fps, metadata if work.embed else None)
        report.records.append({"path": str(path), **metadata})
