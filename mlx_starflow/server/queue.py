"""The queue: bounded, fair between clients, taken in batches of compatible items.

It uses start-time fair queueing: every item is due at a virtual time, one unit after the previous
item of the same client. A client with forty pictures therefore delays another one only by the batch
that is being drawn.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Hashable

from .errors import RequestError
from .job import DrawJob, Item, Job


def agreement(item: Item) -> Hashable:
    """A value that is equal for items that can be drawn as one batch. A task always runs alone."""
    job = item.job
    if not isinstance(job, DrawJob):
        return item
    fields = dataclasses.fields(job.settings)
    return tuple(
        getattr(job.settings, f.name) for f in fields if f.name not in ("prompts", "seeds")
    )


class Queue:
    """The waiting items. Thread-safe. ``most``: largest number of items."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.changed = threading.Condition()
        self._items: list[Item] = []
        self._now = 0.0
        self._due: dict[str, float] = {}  # client -> virtual time of its next item
        self.closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, job: Job, retry_after: Callable[[], int]) -> None:
        """Add all items of a job. ``retry_after``: returns the seconds for the header of an error.
        Errors: RequestError 429 if the queue is full, 503 if the server is stopping."""
        with self.changed:
            if self.closed:
                raise RequestError(503, "The server is stopping.", code="stopping")
            if len(self._items) + len(job.items) > self.most:
                raise RequestError(
                    429,
                    f"The queue is full: {len(self._items)} pictures are waiting, and at most "
                    f"{self.most} may wait. Try again later.",
                    code="queue_full",
                    retry_after=retry_after(),
                )
            due = max(self._now, self._due.get(job.owner, 0.0))
            for item in job.items:
                item.turn, due = due, due + 1
            self._due[job.owner] = due
            self._items = sorted([*self._items, *job.items], key=_turn)  # a stable sort
            self.changed.notify_all()

    def put_back(self, items: list[Item]) -> None:
        """Put the items of a failed batch at the front, to be drawn one by one."""
        with self.changed:
            for item in items:
                item.alone = True
            self._items = [*items, *self._items]
            self.changed.notify_all()

    def take(
        self, largest: Callable[[Item], int], expected: int = 0, patience: float = 0.0
    ) -> list[Item]:
        """Wait for items and take the next batch. Returns [] when the queue is closed.

        largest: returns the largest batch for an item. expected, patience: wait at most
        ``patience`` seconds for ``expected`` items. The clients of the last batch often send their
        next requests one after another; without this, the first would be drawn alone.
        """
        until = time.monotonic() + patience
        while True:
            with self.changed:
                while not self._items and not self.closed:
                    self.changed.wait()
                while len(self._items) < expected and not self.closed:
                    left = until - time.monotonic()
                    if left <= 0 or not self.changed.wait(left):
                        break
                if self.closed:
                    return []
                first = self._items[0]
            most = 1 if first.alone else max(1, largest(first))  # without the lock: reads files
            batch = self._take_with(first, most)
            if batch:  # empty if the first item was cancelled meanwhile
                return batch

    def _take_with(self, first: Item, most: int) -> list[Item]:
        with self.changed:
            if first not in self._items:
                return []
            wanted = agreement(first)
            batch = [first]
            for item in self._items:
                if len(batch) == most:
                    break
                if item is not first and not item.alone and agreement(item) == wanted:
                    batch.append(item)
            taken = set(batch)
            self._items = [item for item in self._items if item not in taken]
            self._now = max(self._now, first.turn)
            if not self._items:
                self._due.clear()
                self._now = 0.0
            return batch

    def drop(self, job: Job) -> bool:
        """Remove the waiting items of a job. Returns whether there were any."""
        with self.changed:
            before = len(self._items)
            self._items = [item for item in self._items if item.job is not job]
            return len(self._items) < before

    def ahead(self, job: Job) -> int | None:
        """The number of items before the job's first one; None if none of its items waits."""
        with self.changed:
            for place, item in enumerate(self._items):
                if item.job is job:
                    return place
        return None

    def jobs(self) -> list[Job]:
        """The jobs that have items waiting, in order."""
        with self.changed:
            return list(dict.fromkeys(item.job for item in self._items))

    def close(self) -> list[Job]:
        """Remove all items and refuse new ones. Returns the jobs that were waiting."""
        with self.changed:
            self.closed = True
            jobs = list(dict.fromkeys(item.job for item in self._items))
            self._items = []
            self.changed.notify_all()
            return jobs


def whole_seconds(seconds: float | None) -> int:
    """Seconds for the header Retry-After: from 1 to 600; 5 if unknown."""
    return 5 if seconds is None else min(max(math.ceil(seconds), 1), 600)


def _turn(item: Item) -> float:
    return item.turn
