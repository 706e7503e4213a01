"""Jobs: the work of one request, with its state, updates and cancellation."""

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
    """An update on a job, for its client."""

    event: str  # "queued" | "progress" | "preview" | "drawn" | "finished" | "failed" | ...
    data: dict[str, Any] = field(default_factory=dict)  # values for JSON
    picture: int | None = None  # index of the picture in the request
    image: Image.Image | None = None  # of "preview"
    value: Any = None  # of "drawn": a Drawn; of "finished": the result of a task
    error: BaseException | None = None  # of "failed"


@dataclass(frozen=True)
class Drawn:
    """A finished picture that is not written yet."""

    image: Image.Image
    metadata: dict[str, Any]
    seed: int
    gain: float | None  # nats, log p(x | prompt) - log p(x | no prompt); None without a prompt


Task = Callable[[Pipeline], Generator[float, None, Any]]  # yields the fraction done
Listener = Callable[[Update], None]


class Item:
    """An entry of the queue: one picture of a job, or the job's task."""

    def __init__(self, job: Job, index: int) -> None:
        self.job, self.index = job, index
        self.turn = 0.0  # virtual time at which it is due, see queue.py
        self.alone = False  # its batch failed, so it is drawn again alone

    @property
    def cancelled(self) -> bool:
        """Whether its job was cancelled."""
        return self.job.cancel.is_set()


class Job:
    """The work of one request. ``owner``: the client. ``listener``: receives updates in the drawing
    thread and must not block."""

    def __init__(self, owner: str, kind: str, listener: Listener) -> None:
        self.id = secrets.token_hex(8)
        self.owner, self.kind, self._listener = owner, kind, listener
        self.created = time.time()
        self.cancel = threading.Event()
        self._lock = threading.Lock()
        self.state = WAITING
        self.progress: dict[str, Any] = {}  # data of the last "queued" or "progress" update
        self.follows = True  # whether the listener receives progress
        self.items: list[Item] = []
        self.open = 0  # number of unfinished items

    def tell(self, update: Update) -> None:
        """Pass an update to the listener. After the end of the job updates are dropped."""
        if self.state in ENDED and update.event not in ("ended", "failed"):
            return
        if update.event in ("queued", "progress"):
            self.progress = update.data
            if not self.follows:
                return
        self._listener(update)

    def begin(self) -> None:
        """The job's first items were taken from the queue."""
        with self._lock:
            if self.state == WAITING:
                self.state = WORKING

    def end(self, state: str, error: BaseException | None = None) -> None:
        """End the job and tell the listener. Later calls have no effect."""
        with self._lock:
            if self.state in ENDED:
                return
            self.state = state
        if state == CANCELLED:
            error = error or Cancelled("The work was cancelled.")
        self.tell(Update("ended" if error is None else "failed", {"job": self.id}, error=error))

    def describe(self) -> dict[str, Any]:
        """The object for /api/jobs. Does not contain prompts or pictures."""
        return {
            "job": self.id,
            "kind": self.kind,
            "state": self.state,
            "created": int(self.created),
            **{k: v for k, v in self.progress.items() if k not in ("event", "job")},
        }


class DrawJob(Job):
    """Pictures to draw; they may be drawn in one batch with those of other jobs."""

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
    """Work other than drawing from a prompt, such as an edit or a score. Runs alone."""

    def __init__(self, owner: str, listener: Listener, kind: str, task: Task) -> None:
        super().__init__(owner, kind, listener)
        self.task = task
        self.items = [Item(self, 0)]
        self.open = 1
