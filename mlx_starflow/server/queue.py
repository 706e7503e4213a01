"""The waiting line: bounded, fair between clients, and handed out in batches that agree.

Fairness is that of start-time fair queueing: every item is due at a virtual time, one unit after
the item before it of the same client, so that a client who sends forty pictures does not keep
another waiting for more than the batch that is being drawn.
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
    """Equal for items that can be drawn as one batch; a task agrees with nothing."""
    job = item.job
    if not isinstance(job, DrawJob):
        return item
    fields = dataclasses.fields(job.settings)
    return tuple(
        getattr(job.settings, f.name) for f in fields if f.name not in ("prompts", "seeds")
    )


class Queue:
    """Items that wait. Any thread may call any method."""

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
        """Line up all items of a job. Errors: RequestError 429 where there is no room, 503 where
        the server is stopping."""
        with self.changed:
            if self.closed:
                raise RequestError(503, "The server is stopping.", code="stopping")
            if len(self._items) + len(job.items) > self.most:
                raise RequestError(
                    429,
                    f"{len(self._items)} pictures are waiting, of at most {self.most}; "
                    "try again later.",
                    code="queue_full",
                    retry_after=retry_after(),
                )
            due = max(self._now, self._due.get(job.owner, 0.0))
            for item in job.items:
                item.turn, due = due, due + 1
            self._due[job.owner] = due
            self._items = sorted([*self._items, *job.items], key=_turn)  # stable: first come
            self.changed.notify_all()

    def put_back(self, items: list[Item]) -> None:
        """Items of a batch that failed, to be drawn one by one before all others."""
        with self.changed:
            for item in items:
                item.alone = True
            self._items = [*items, *self._items]
            self.changed.notify_all()

    def take(
        self, largest: Callable[[Item], int], expected: int = 0, patience: float = 0.0
    ) -> list[Item]:
        """The next batch, in order; waits for one. Empty once the queue is closed.

        largest: how many items may be drawn together with the given one. expected, patience: wait
        so many seconds at most for so many items, since the clients of the batch before come back
        one after another: the first of them would be drawn alone, and the others after it.
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
            most = 1 if first.alone else max(1, largest(first))  # reads files: not under the lock
            batch = self._take_with(first, most)
            if batch:  # empty where the first was cancelled meanwhile
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
        """Take out what of a job still waits; whether there was anything."""
        with self.changed:
            before = len(self._items)
            self._items = [item for item in self._items if item.job is not job]
            return len(self._items) < before

    def ahead(self, job: Job) -> int | None:
        """Items before the job's first one; None where none of it waits."""
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
        """Refuse and forget everything; the jobs that were waiting."""
        with self.changed:
            self.closed = True
            jobs = list(dict.fromkeys(item.job for item in self._items))
            self._items = []
            self.changed.notify_all()
            return jobs


def whole_seconds(seconds: float | None) -> int:
    """For Retry-After: at least 1, at most 600, 5 where nothing is known."""
    return 5 if seconds is None else min(max(math.ceil(seconds), 1), 600)


def _turn(item: Item) -> float:
    return item.turn
