"""Scoring many pictures in groups, with progress and a list of those that failed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..editing.inputs import contexts_of, latents_of
from ..errors import ImageError
from ..exact.scoring import Score, ScoreOptions, score_steps
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
        self.paths, self.prompts = paths, prompts
        self.found: list[tuple[Picture, Score]] = []
        self.failed: list[dict[str, str]] = []  # path and reason of pictures that cannot be scored
        self._options, self._fit, self._console = options, fit, console
        self._contexts: dict[str, Any] = {}

    def run(self, pipe: Pipeline) -> None:
        """Score every picture under every prompt and, in the last row, the null caption. If one of
        several pictures cannot be read, it is added to ``failed``. Errors: ImageError for a single
        picture that cannot be read."""
        for start in range(0, len(self.paths), GROUP):
            taken = list(self._read(pipe, self.paths[start : start + GROUP]))
            for ratio in dict.fromkeys(r for _, r in taken):
                self._score(pipe, [p for p, r in taken if r == ratio], ratio)

    def _read(self, pipe: Pipeline, paths: list[Path]) -> Iterator[tuple[Picture, str]]:
        for path in paths:
            try:
                yield take_picture(pipe, path, self._fit, self._console)
            except ImageError as error:
                if len(self.paths) == 1:
                    raise
                self.failed.append({"path": str(path), "error": str(error)})
                self._console.say(f"Warning: {error}")

    def _score(self, pipe: Pipeline, pictures: list[Picture], ratio: str) -> None:
        if ratio not in self._contexts:
            conditions = self.prompts if self.prompts == [""] else [*self.prompts, ""]
            self._contexts[ratio] = contexts_of(pipe, conditions, ratio)
        x = latents_of(pipe, [picture.image for picture in pictures])
        work = score_steps(pipe.flow, x, self._contexts[ratio], self._options)
        total, before = len(self.paths), len(self.found) + len(self.failed)
        while True:
            try:
                within = next(work)
            except StopIteration as stop:
                self.found += zip(pictures, stop.value, strict=True)
                return
            share = (before + within * len(pictures)) / total
            self._console.draw("score", f"{before}/{total} pictures", share, None)
