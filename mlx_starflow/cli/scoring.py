"""Scoring many pictures in groups, with progress and a list of those that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..editing.inputs import contexts_of, latents_of, prepared_clip
from ..errors import ImageError
from ..exact.scoring import Score, ScoreOptions, score_steps
from ..pictures.clips import read_clip
from ..pictures.read import Picture
from ..pipeline import Pipeline
from .console import Console
from .picture_options import Fit, take_picture

GROUP = 16  # pictures that are scored together


class Scoring:
    """The work of ``score``. After an interruption, ``found`` has the pictures that were done."""

    def __init__(
        self,
        paths: list[Path],
        prompts: list[str],
        options: ScoreOptions,
        fit: Fit,
        console: Console,
    ) -> None:
        self._fps: int | None = None
        self.step: Callable[[], None] = lambda: None  # called while the work goes on
        self.paths, self.prompts = paths, prompts
        self.found: list[tuple[Picture, Score]] = []
        self.failed: list[dict[str, str]] = []  # path and reason of pictures that cannot be scored
        self._options, self._fit, self._console = options, fit, console
        self._contexts: dict[str, Any] = {}

    def as_clips(self, fps: int) -> None:
        """The paths are clips with so many frames per second."""
        self._fps = fps

    def run(self, pipe: Pipeline) -> None:
        """Score every picture under every prompt and, in the last row, the null caption. If one of
        several pictures cannot be read, it is added to ``failed``. Errors: ImageError for a single
        picture that cannot be read."""
        for number in range(self.groups):
            self.run_group(pipe, number)

    @property
    def groups(self) -> int:
        """The number of groups of pictures, or of clips."""
        return len(self.paths) if self._fps is not None else -(-len(self.paths) // GROUP)

    def run_group(self, pipe: Pipeline, number: int) -> None:
        """Score the pictures of one group, or one clip. Errors: as ``run``."""
        if self._fps is not None:
            self._score_clip(pipe, self.paths[number], self._fps)
            return
        taken = list(self._read(pipe, self.paths[number * GROUP : (number + 1) * GROUP]))
        for ratio in dict.fromkeys(r for _, r in taken):
            self._score(pipe, [p for p, r in taken if r == ratio], ratio)

    def _read(self, pipe: Pipeline, paths: list[Path]) -> Iterator[tuple[Picture, str]]:
        for path in paths:
            self.step()
            try:
                yield take_picture(pipe, path, self._fit, self._console)
            except ImageError as error:
                if len(self.paths) == 1:
                    raise
                self.failed.append({"path": str(path), "error": str(error)})
                self._console.say(f"Warning: {error}")

    def _score_clip(self, pipe: Pipeline, path: Path, fps: int) -> None:
        try:
            source = prepared_clip(pipe, read_clip(path), str(path), self._fit.value)
        except ImageError as error:
            if len(self.paths) == 1:
                raise
            self.failed.append({"path": str(path), "error": str(error)})
            self._console.say(f"Warning: {error}")
            return
        for note in source.notes:
            self._console.say(f"Note: {path} was {note}.")
        first = Picture(source.frames[0], str(path), source.notes)
        x = latents_of(pipe, [source.frames])  # one frame is also scored as a clip
        self._go(pipe, [first], source.aspect_ratio, x, fps)

    def _score(self, pipe: Pipeline, pictures: list[Picture], ratio: str) -> None:
        x = latents_of(pipe, [picture.image for picture in pictures])
        self._go(pipe, pictures, ratio, x, 0)

    def _go(
        self, pipe: Pipeline, pictures: list[Picture], ratio: str, x: mx.array, fps: int
    ) -> None:
        if ratio not in self._contexts:
            conditions = self.prompts if self.prompts == [""] else [*self.prompts, ""]
            self._contexts[ratio] = contexts_of(pipe, conditions, ratio, fps)
        work = score_steps(pipe.flow, x, self._contexts[ratio], self._options)
        total, before = len(self.paths), len(self.found) + len(self.failed)
        while True:
            try:
                within = next(work)
            except StopIteration as stop:
                self.found += zip(pictures, stop.value, strict=True)
                return
            self.step()
            share = (before + within * len(pictures)) / total
            self._console.draw("score", f"{before}/{total} pictures", share, None)
