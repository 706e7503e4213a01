"""One request's work: pictures to draw, or one piece of other work, with its updates and cancel."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..errors import Cancelled
from ..generation.settings import Settings
from ..pipeline import Pipeline

WAITING, WORKING, DONE, FAILED, CANCELLED = "waiting", "working", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)


@dataclass(frozen=True)
class Update:
    """Something a client may want to know. ``data`` is JSON; objects stand beside it."""

    event: str  # "queued" | "progress" | "preview" | "drawn" | "finished" | "failed" | ...
    data: dict[str, Any] = field(default_factory=dict)
    picture: int | None = None  # number of the picture in its request
    image: Image.Image | None = None  # "preview"
    value: Any = None  # "drawn": a Drawn; "finished": the result of a task
    error: BaseException | None = None  # "failed"


@dataclass(frozen=True)
class Drawn:
    """A finished picture, not yet written."""

    image: Image.Image
    metadata: dict[str, Any]
    seed: int
    gain: float | None  # nats that the prompt adds to log p over no prompt; None without prompt


Task = Callable[[Pipeline], Generator[float, None, Any]]  # yields the share done, returns a result
Listener = Callable[[Update], None]


class Item:
    """What the queue holds: one picture of a job, or the job's task."""

    def __init__(self, job: Job, index: int) -> None:
        self.job, self.index = job, index
        self.turn = 0.0  # virtual time at which it is due, see the queue
        self.alone = False  # its batch failed: it is drawn again by itself

    @property
    def cancelled(self) -> bool:
        return self.job.cancel.is_set()


class Job:
    """The work of one request. ``listener`` is called from the drawing thread and may not block."""

    def __init__(self, owner: str, kind: str, listener: Listener) -> None:
        self.id = secrets.token_hex(8)
        self.owner, self.kind, self._listener = owner, kind, listener
        self.created = time.time()
        self.cancel = threading.Event()
        self._lock = threading.Lock()
        self.state = WAITING
        self.progress: dict[str, Any] = {}  # the last told of "queued" or "progress"
        self.follows = True  # whether the listener wants to be told of progress
        self.items: list[Item] = []
        self.open = 0  # items that are not finished

    def tell(self, update: Update) -> None:
        """Pass an update on; nothing comes after the end."""
        if self.state in ENDED and update.event not in ("ended", "failed"):
            return
        if update.event in ("queued", "progress"):
            self.progress = update.data
            if not self.follows:
                return
        self._listener(update)

    def begin(self) -> None:
        """Its first items are taken."""
        with self._lock:
            if self.state == WAITING:
                self.state = WORKING

    def end(self, state: str, error: BaseException | None = None) -> None:
        """The job has ended; told once."""
        with self._lock:
            if self.state in ENDED:
                return
            self.state = state
        if state == CANCELLED:
            error = error or Cancelled("The work was cancelled.")
        self.tell(Update("ended" if error is None else "failed", {"job": self.id}, error=error))

    def describe(self) -> dict[str, Any]:
        """The job for /api/jobs; says nothing of what it draws."""
        return {
            "job": self.id,
            "kind": self.kind,
            "state": self.state,
            "created": int(self.created),
            **{k: v for k, v in self.progress.items() if k not in ("event", "job")},
        }


class DrawJob(Job):
    """Pictures with a prompt and a seed each, which may be drawn with those of other jobs."""

    def __init__(
        self,
        owner: str,
        listener: Listener,
        settings: Settings,
        options: dict[str, Any],
        previews: bool = False,
        kind: str = "generate",
    ) -> None:
        super().__init__(owner, kind, listener)
        self.settings, self.options, self.previews = settings, options, previews
        self.prompts, self.seeds = settings.prompts, settings.seeds
        self.items = [Item(self, i) for i in range(len(self.seeds))]
        self.open = len(self.items)


class TaskJob(Job):
    """One piece of work that is not shared: an edit, a score, an interpolation."""

    def __init__(self, owner: str, listener: Listener, kind: str, task: Task) -> None:
        super().__init__(owner, kind, listener)
        self.task = task
        self.items = [Item(self, 0)]
        self.open = 1
