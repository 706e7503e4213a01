"""The drawing thread: takes batches from the queue and sends each job its pictures."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, cast

import mlx.core as mx

from ..device.heap import return_freed_memory
from ..errors import Cancelled, StarflowError
from ..generation.events import (
    BlockDone,
    BlockProgress,
    Decoded,
    Denoised,
    Event,
    Finished,
    Phase,
    Preview,
    Started,
    TextEncoded,
)
from ..generation.result import Result
from ..pipeline import Pipeline
from .errors import RequestError
from .helpers import Helpers, NoHelpers, divided, gains_of
from .job import CANCELLED, DONE, ENDED, FAILED, DrawJob, Drawn, Item, Job, TaskJob, Update
from .pace import Pace, left
from .queue import Queue, agreement, whole_seconds

log = logging.getLogger("mlx_starflow.server")
REMEMBERED = 200  # ended jobs whose state is kept
PATIENCE = 0.1  # share of a batch's time to wait for the next requests of its clients
MOST_PATIENCE = 1.0  # seconds
PROGRESS_SECONDS = 0.1  # between two updates of a batch's progress
MOST_KINDS = 100  # kinds of batches (see ``agreement``) whose largest size is kept


class Scheduler:
    """Runs the submitted jobs in the drawing thread, which also calls the jobs' listeners.
    Thread-safe."""

    def __init__(
        self, pipe: Pipeline, max_batch: int, max_queue: int, helpers: Helpers | None = None
    ) -> None:
        """``helpers``: others that draw parts of every batch. ``max_batch``: most pictures that one
        of them, or this process, draws at a time."""
        self._helpers = helpers or NoHelpers()
        self._pipe, self.max_batch = pipe, max_batch * (1 + self._helpers.count)
        self.queue = Queue(max_queue)
        self._pace: dict[Hashable, Pace] = {}
        self._largest: OrderedDict[Hashable, int] = OrderedDict()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._running: list[Item] = []
        self._seconds_left: float | None = None  # of what is being drawn
        self.drawn = 0  # pictures since the start
        self.batches = 0
        self._thread = threading.Thread(target=self._work, name="mlx-starflow-draw", daemon=True)

    def start(self) -> None:
        """Start the drawing thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Add a job to the queue. Errors: RequestError if the queue is full."""
        with self._lock:
            self._jobs[job.id] = job
            while len(self._jobs) > REMEMBERED + self.queue.most:
                self._jobs.popitem(last=False)
        try:
            self.queue.put(job, lambda: whole_seconds(self._seconds_left))
        except StarflowError:
            with self._lock:
                self._jobs.pop(job.id, None)
            raise
        self._tell_place(job)

    def job(self, name: str) -> Job | None:
        """The job with this id, or None."""
        return self._jobs.get(name)

    def cancel(self, job: Job) -> None:
        """Cancel a job: its waiting items are removed, and pictures that are being drawn are not
        delivered. A batch whose jobs are all cancelled ends at its next step."""
        job.cancel.set()
        self.queue.drop(job)
        self._end(job)

    def status(self) -> dict[str, Any]:
        """Counts for /api/queue."""
        return {
            "waiting": len(self.queue),
            "drawing": len(self._running),
            "most": self.queue.most,
            "max_batch": self.max_batch,
            "drawn": self.drawn,
            "batches": self.batches,
            "seconds_left": _rounded(self._seconds_left),
        }

    def stop(self) -> None:
        """Cancel all jobs and refuse new ones. Returns at once. May be called in a signal handler,
        since it takes no lock."""
        self._stopping.set()
        threading.Thread(target=self._cancel_all, daemon=True).start()

    def join(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the drawing thread to end. Returns whether it has ended."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _cancel_all(self) -> None:
        for job in [*self.queue.close(), *_jobs_of(self._running)]:
            self._end(job)

    def _end(self, job: Job) -> None:
        """End a job that was cancelled by its client, or because the server is stopping."""
        stopping = RequestError(503, "The server is stopping.", code="stopping")
        job.end(CANCELLED, stopping if self._stopping.is_set() else None)

    def _load(self) -> None:
        """Read the weights before the first request needs them."""
        try:
            _ = self._pipe.text_encoder, self._pipe.flow, self._pipe.vae
        except Exception:  # every request will report it
            if not self._stopping.is_set():
                log.exception("the model could not be loaded")

    def _work(self) -> None:
        self._load()
        expected, patience = 0, 0.0
        while batch := self.queue.take(self._most_together, expected, patience):
            self._running = batch
            self._seconds_left = self._pace_of(batch[0]).batch(len(batch))
            for job in _jobs_of(batch):
                job.begin()
            self._tell_places()
            began = time.perf_counter()
            try:
                if isinstance(batch[0].job, TaskJob):
                    self._run(batch[0].job, began)
                else:
                    self._draw(batch, began)
                self._pace_of(batch[0]).learn(len(batch), time.perf_counter() - began)
            except Exception as error:
                self._failed(batch, error)
            finally:
                self._running, self._seconds_left = [], None
            self.batches += 1
            # Wait for more requests only after a batch of several.
            expected = len(batch) if len(batch) > 1 else 0
            patience = min(PATIENCE * (time.perf_counter() - began), MOST_PATIENCE)
            del batch
            if not len(self.queue):
                return_freed_memory()  # the next batch may be smaller, or come much later
        self._cancel_all()
        mx.clear_streams()  # without this the process may abort when the thread ends

    def _draw(self, batch: list[Item], began: float) -> None:
        """Draw a batch, its first part here and the others by helpers at the same time."""
        own, *others = divided(batch, 1 + self._helpers.count)
        collect = self._helpers.start(others)
        shared = len(_jobs_of(batch)) > 1
        try:
            self._draw_here(own, began, shared)
        finally:
            for item, drawn in collect():
                self._deliver(item, drawn, shared)

    def _draw_here(self, batch: list[Item], began: float, shared: bool) -> None:
        first = cast(DrawJob, batch[0].job)
        jobs = [cast(DrawJob, job) for job in _jobs_of(batch)]
        follow = _Follower(batch, began, self._pace_of(batch[0]).batch(len(batch)))
        result: Result | None = None
        events = self._pipe.stream(
            [cast(DrawJob, i.job).prompts[i.index] for i in batch],
            [cast(DrawJob, i.job).seeds[i.index] for i in batch],
            previews=any(job.previews for job in jobs),
            cancel=_Unwanted(batch, self._stopping),
            **first.options,
        )
        for event in events:
            self._seconds_left = follow.tell(event)
            if isinstance(event, Preview):
                self._preview(batch, event)
            elif isinstance(event, Finished):
                result = event.result
        if result is not None:
            gains = gains_of(self._pipe, result)
            for row, item in enumerate(batch):
                metadata, seed = result.metadata_of(row), result.settings.seeds[row]
                drawn = Drawn(result.images[row], metadata, seed, gains[row])
                self._deliver(item, drawn, shared)

    def _preview(self, batch: list[Item], event: Preview) -> None:
        wanted = [i for i in batch if cast(DrawJob, i.job).previews and not i.cancelled]
        if not wanted:
            return
        images = self._pipe.preview(event.latents)
        for row, item in enumerate(batch):
            if item in wanted:
                data = {**event.to_dict(), "job": item.job.id, "picture": item.index}
                item.job.tell(Update("preview", data, item.index, images[row]))

    def _deliver(self, item: Item, drawn: Drawn, shared: bool) -> None:
        job = item.job
        if item.cancelled or job.state in ENDED or self._stopping.is_set():
            return
        if shared:
            drawn.metadata.pop("batch", None)  # it has prompts of other clients
        self.drawn += 1
        job.open -= 1
        job.tell(Update("drawn", {"job": job.id}, item.index, value=drawn))
        if not job.open:
            job.end(DONE)

    def _run(self, job: TaskJob, began: float) -> None:
        work = job.task(self._pipe)
        done = object()
        result: Any = None

        def step() -> Any:
            nonlocal result
            try:
                return next(work)
            except StopIteration as stop:
                result = stop.value
                return done

        expected = self._pace_of(job.items[0]).batch(1)
        told = 0.0
        try:
            while (share := self._pipe.run(step)) is not done:
                if job.cancel.is_set() or self._stopping.is_set():
                    raise Cancelled("The work was cancelled.")
                now = time.perf_counter()
                self._seconds_left = left(share, now - began, expected)
                if now - told > 1 / 30:
                    told = now
                    job.tell(Update("progress", _progress(job, share, self._seconds_left)))
        finally:
            self._pipe.run(work.close)
        job.open = 0
        job.tell(Update("finished", {"job": job.id}, value=result))
        job.end(DONE)

    def _failed(self, batch: list[Item], error: Exception) -> None:
        """Handle the error of a batch. If it has several pictures, they are drawn again one by one,
        so that only those fail that cause the error."""
        wanted = [item for item in batch if not item.cancelled]
        if isinstance(error, Cancelled) or self._stopping.is_set():
            for job in _jobs_of(batch):
                self._end(job)
            return
        if not isinstance(error, StarflowError):
            log.exception("drawing failed")
        if len(batch) > 1:
            self.queue.put_back(wanted)
            return
        for job in _jobs_of(batch):
            self.queue.drop(job)
            job.end(FAILED, error)

    def _most_together(self, item: Item) -> int:
        job = item.job
        if not isinstance(job, DrawJob):
            return 1
        kind = agreement(item)
        if kind not in self._largest:
            try:
                ranks = 1 + self._helpers.count
                most = ranks * self._pipe.largest_batch(job.settings, self.max_batch // ranks)
            except (StarflowError, OSError):  # drawing will report the error
                return 1
            self._largest[kind] = most
            while len(self._largest) > MOST_KINDS:
                self._largest.popitem(last=False)
        return self._largest[kind]

    def _pace_of(self, item: Item) -> Pace:
        kind = agreement(item) if isinstance(item.job, DrawJob) else item.job.kind
        with self._lock:
            if kind not in self._pace:
                while len(self._pace) >= 2 * MOST_KINDS:
                    self._pace.pop(next(iter(self._pace)))
                self._pace[kind] = Pace()
            return self._pace[kind]

    def _tell_places(self) -> None:
        for job in self.queue.jobs():
            self._tell_place(job)

    def _tell_place(self, job: Job) -> None:
        ahead = self.queue.ahead(job)
        if ahead is None:
            return
        own = self._pace_of(job.items[0]).several(ahead + len(job.items), self.max_batch)
        seconds = None if own is None else own + (self._seconds_left or 0.0)
        place = {"event": "queued", "job": job.id, "position": ahead + 1}
        job.tell(Update("queued", place | {"seconds_left": _rounded(seconds)}))


class _Unwanted:
    """The cancel flag of a batch: set when all jobs are cancelled or the server is stopping."""

    def __init__(self, batch: list[Item], stopping: threading.Event) -> None:
        self._batch, self._stopping = batch, stopping

    def is_set(self) -> bool:
        return self._stopping.is_set() or all(item.cancelled for item in self._batch)


class _Follower:
    """Sends the progress of a batch to its jobs."""

    def __init__(self, batch: list[Item], began: float, expected: float | None) -> None:
        self._jobs = _jobs_of(batch)
        self._pictures = {
            job.id: [item.index for item in batch if item.job is job] for job in self._jobs
        }
        self._began, self._expected = began, expected
        self._share = self._told = 0.0
        self._before: dict[str, tuple[float, Phase]] = {}

    def tell(self, event: Event) -> float | None:
        """Send an event to the jobs. Returns the estimated remaining seconds."""
        if isinstance(event, Started):
            before = 0.0
            for phase in event.phases:
                self._before[phase.name] = before, phase
                before += phase.share
        before, phase = self._before[event.phase]
        if isinstance(event, BlockProgress):
            before += phase.share * event.tokens_done / event.tokens_total
        elif isinstance(event, BlockDone | TextEncoded | Denoised | Decoded):
            before += phase.share
        self._share = share = max(self._share, before)
        seconds = left(share, time.perf_counter() - self._began, self._expected)
        now = time.perf_counter()
        if isinstance(event, Preview | Finished):
            return seconds
        if isinstance(event, BlockProgress) and now - self._told < PROGRESS_SECONDS:
            return seconds
        self._told = now
        data = event.to_dict()
        for job in self._jobs:
            if not job.cancel.is_set():
                numbers = {"numbers": self._pictures[job.id]}  # the job's pictures in the batch
                job.tell(Update("progress", _progress(job, share, seconds) | numbers | data))
        return seconds


def _progress(job: Job, share: float, seconds: float | None) -> dict[str, Any]:
    return {
        "event": "progress",
        "job": job.id,
        "share": round(share, 4),
        "seconds_left": _rounded(seconds),
    }


def _jobs_of(batch: list[Item]) -> list[Job]:
    return list(dict.fromkeys(item.job for item in batch))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
