"""The state that all routes share: the model, the scheduler, the gallery, and saving pictures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ..pipeline import Pipeline
from .asked import Asked, FileForm
from .gallery import Gallery, Kept
from .helpers import Helpers
from .job import ENDED, DrawJob, Drawn, Job, Task, TaskJob, Update
from .options import ServeOptions
from .scheduler import Scheduler

log = logging.getLogger("mlx_starflow.server")
MOST_UPDATES = 200  # waiting for a slow client; beyond, progress updates are dropped
SAVERS = 2  # threads that compress and write pictures


@dataclass(frozen=True)
class Saved:
    """A picture that was drawn and saved."""

    kept: Kept
    content: bytes
    image: Image.Image
    metadata: dict[str, Any]
    seed: int
    gain: float | None
    index: int  # of the picture in its request
    form: FileForm


class Inbox:
    """The listener of a job: passes updates from the drawing thread to the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._updates: asyncio.Queue[Update] = asyncio.Queue()

    def __call__(self, update: Update) -> None:
        if update.event == "progress" and self._updates.qsize() > MOST_UPDATES:
            return
        try:
            self._loop.call_soon_threadsafe(self._updates.put_nowait, update)
        except RuntimeError:  # the event loop is closed
            log.debug("an update arrived after the end of the server")

    async def __aiter__(self) -> AsyncIterator[Update]:
        """Yields updates until the job has ended; raises the error of a failed job."""
        while True:
            update = await self._updates.get()
            if update.event == "failed" and update.error is not None:
                raise update.error
            if update.event == "ended":
                return
            yield update


class Studio:
    """One loaded model with scheduler and gallery."""

    def __init__(
        self, pipe: Pipeline, options: ServeOptions, helpers: Helpers | None = None
    ) -> None:
        self.pipe, self.options, self.limits = pipe, options, options.limits
        self.started = int(time.time())
        self.gallery = Gallery(options.output)
        self.scheduler = Scheduler(pipe, options.max_batch, options.max_queue, helpers)
        self.facts = pipe.capabilities()
        self._savers = ThreadPoolExecutor(SAVERS, "mlx-starflow-save")

    @property
    def model_id(self) -> str:
        """The model's name for clients; for a directory, its last part."""
        name = self.pipe.name
        return Path(name).name if Path(name).is_dir() else name

    @property
    def model_ids(self) -> tuple[str, ...]:
        """The names by which clients may call the loaded model."""
        return tuple(dict.fromkeys(name for name in (self.model_id, self.pipe.config.name) if name))

    @property
    def prompt_needed(self) -> bool:
        """Whether the model needs a prompt or a class."""
        return bool(self.facts["prompt"] != "none")

    def capabilities(self) -> dict[str, Any]:
        """The object for /api/capabilities: ``Pipeline.capabilities`` and the server's limits."""
        limits = self.limits
        model = {**self.facts["model"], "name": self.model_id}
        return {
            **self.facts,
            "model": model,
            "server": {
                "max_batch": self.options.max_batch,
                "max_queue": self.options.max_queue,
                "pictures": limits.pictures,
                "best_of": limits.best_of,
                "prompt": limits.prompt,
                "upload_bytes": limits.upload_bytes,
                "pixels": limits.pixels,
                "side": limits.side,
                "frames": limits.frames,
                "formats": ["png", "jpeg", "webp"],
            },
        }

    def start(self) -> None:
        """Clean the gallery and start drawing."""
        self.gallery.clean()
        self.scheduler.start()

    def stop(self) -> None:
        """Cancel all jobs. Returns at once."""
        self.scheduler.stop()

    def close(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for cancelled work to end. Returns whether it has ended."""
        ended = self.scheduler.join(seconds)
        self._savers.shutdown(wait=True, cancel_futures=True)
        return ended

    def draw(
        self, owner: str, asked: Asked, previews: bool = False, follows: bool = False
    ) -> tuple[DrawJob, Inbox]:
        """Add the pictures of a request to the queue. Returns the job and its updates.

        ``follows``: also send updates of the progress, each of which takes time of the event loop.
        Errors: UsageError for what the model cannot do, RequestError if the queue is full.
        """
        prompts = None if not self.prompt_needed and not asked.prompt else asked.prompt
        count = {"num_images": len(asked.seeds)}
        settings = self.pipe.settings(prompts, list(asked.seeds), **count, **asked.options)
        for prompt in set(settings.prompts) if self.facts["limits"]["classes"] else ():
            self.pipe.label(prompt)
        inbox = Inbox()
        job = DrawJob(owner, inbox, settings, asked.options, previews)
        job.follows = follows
        self.scheduler.submit(job)
        return job, inbox

    def task(self, owner: str, kind: str, task: Task) -> tuple[TaskJob, Inbox]:
        """Add other work to the queue. Returns the job and its updates. Errors: RequestError if the
        queue is full."""
        inbox = Inbox()
        job = TaskJob(owner, inbox, kind, task)
        self.scheduler.submit(job)
        return job, inbox

    async def follow(
        self, job: Job, inbox: Inbox, asked: Asked
    ) -> AsyncGenerator[Update | Saved, None]:
        """Yields the updates of a job; instead of "drawn", and "finished" of a task that draws
        pictures, it yields the saved pictures. Closing the generator cancels the job."""
        waiting: list[asyncio.Task[Saved]] = []
        kept_back: list[tuple[int, Drawn]] = []
        try:
            async for update in inbox:
                if update.event == "drawn":
                    kept_back.append((update.picture or 0, update.value))
                    if not asked.best_of:
                        waiting.append(self._soon(*kept_back.pop(), asked))
                elif update.event == "finished" and isinstance(update.value, list):
                    waiting += [self._soon(i, d, asked) for i, d in enumerate(update.value)]
                else:
                    yield update
                while waiting and waiting[0].done():
                    yield await waiting.pop(0)
            if asked.best_of and kept_back:
                waiting.append(self._soon(*_best(kept_back), asked))
            while waiting:
                yield await waiting.pop(0)
        finally:
            for task in waiting:
                task.cancel()
            if job.state not in ENDED:
                self.scheduler.cancel(job)

    def _soon(self, index: int, drawn: Drawn, asked: Asked) -> asyncio.Task[Saved]:
        return asyncio.ensure_future(self.save(index, drawn, asked))

    async def save(self, index: int, drawn: Drawn, asked: Asked) -> Saved:
        """Scale a picture to the requested size and write it, in another thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._savers, self._save, index, drawn, asked)

    def _save(self, index: int, drawn: Drawn, asked: Asked) -> Saved:
        image, metadata = drawn.image, dict(drawn.metadata)
        if drawn.gain is not None:
            metadata["log_prob_gain"] = drawn.gain
        if asked.size is not None and image.size != asked.size:
            image = ImageOps.fit(image.convert("RGB"), asked.size, Image.Resampling.LANCZOS)
            metadata["resized"] = {"width": asked.size[0], "height": asked.size[1]}
        kept = self.gallery.save(image, metadata, asked.form.suffix, asked.form.quality)
        content = kept.path.read_bytes()
        return Saved(kept, content, image, metadata, drawn.seed, drawn.gain, index, asked.form)


def _best(drawn: list[tuple[int, Drawn]]) -> tuple[int, Drawn]:
    """The picture with the largest gain; the scores of all are stored in its settings."""
    ranked = sorted(drawn, key=lambda one: one[0])
    best = max(ranked, key=lambda one: one[1].gain or 0.0)[1]
    record = {"seeds": [d.seed for _, d in ranked], "scores": [d.gain for _, d in ranked]}
    metadata = {**best.metadata, "best_of": record}
    return 0, Drawn(best.image, metadata, best.seed, best.gain)
