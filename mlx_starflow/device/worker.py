"""A worker thread that does all of a pipeline's work.

MLX ties streams, compiled functions and unevaluated arrays to the thread that made them, but a
pipeline may be called from any thread. So all work is done in one thread, one call after another.

Two kinds of calls would wait forever and therefore raise a UsageError: calls from a forked child
process, which has no copy of the thread (``os.fork`` copies only the calling thread), and calls
from a signal handler that interrupted another call in the same thread.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import mlx.core as mx

from ..errors import UsageError
from .first_stream import make_first_stream
from .wired import wired

T = TypeVar("T")
Task = tuple[Callable[[], object], Future[Any]]
AWAKE = 0.2  # seconds after which a waiting thread checks whether it was interrupted
POLL = 0.05  # seconds between two attempts to get a turn


class Turn:
    """A lock that raises a UsageError, instead of waiting, in the thread that already holds it."""

    def __init__(self) -> None:
        self._lock, self._held = threading.RLock(), False

    @contextmanager
    def held(self, while_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Wait for the turn, calling ``while_waiting`` every POLL seconds, and hold it inside the
        ``with`` block.

        Errors: UsageError if this thread already holds it, as in a signal handler.
        """
        while not self._lock.acquire(timeout=POLL):
            while_waiting()
        try:
            if self._held:  # by this thread, since the RLock keeps other threads waiting
                raise UsageError(
                    "This pipeline was called by a thread whose previous call is not finished, for "
                    "example from a signal handler; the call would wait forever. Set a flag in "
                    "the handler, and call the pipeline afterwards."
                )
            self._held = True
            try:
                yield
            finally:
                self._held = False
        finally:
            self._lock.release()


class Worker:
    """Runs functions one after another in its own thread, which starts at the first call. MLX's
    wired limit is raised while a function runs."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = os.getpid()
        self._turn = Turn()  # protects the attributes below
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the worker was closed, or belongs to the parent of this forked process."""
        return self._closed or self._forked

    @property
    def _forked(self) -> bool:
        return os.getpid() != self._process

    def check_process(self) -> None:
        """Raise a UsageError in a process that was forked after the worker was made."""
        if self._forked:
            raise UsageError(
                "This pipeline was loaded before the process was forked, and cannot be used in "
                "the child. Start processes with the method 'spawn', and load it there."
            )

    def call(self, function: Callable[[], T]) -> T:
        """Call function() in the worker's thread; return its result or raise its error.

        Errors: UsageError after ``close`` and in a forked child. A KeyboardInterrupt while waiting
        is raised at once; the function runs to its end and its result is dropped.
        """
        self.check_process()
        if threading.current_thread() is self._thread:
            return function()
        future: Future[Any] = Future()
        with self._turn.held():
            if self._closed:
                raise UsageError("This pipeline is closed; load it again to use it.")
            if self._thread is None:
                self._start()
            self._tasks.put((function, future))
        try:
            # Repeated short waits, since a signal just before a wait does not interrupt it.
            while not wait([future], AWAKE).done:
                pass
            return future.result()
        except BaseException:
            future.cancel()  # has no effect if the function is already running
            raise

    def post(self, function: Callable[[], object]) -> None:
        """Run function() after all calls that are already queued, without waiting for it."""
        if self._thread is not None and not self.closed:
            self._tasks.put((function, Future()))

    def close(self, wait: bool = True) -> None:
        """End the thread after all queued calls; later calls raise a UsageError."""
        if self._forked:
            return
        with self._turn.held():
            self._closed = True
            self._tasks.put(None)
        if wait and self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join()

    def _start(self) -> None:
        # A daemon thread: at exit Python joins all other threads before it runs the atexit hooks,
        # one of which ends this thread.
        make_first_stream()
        self._thread = threading.Thread(
            target=_work, args=(self._tasks,), name=self._name, daemon=True
        )
        self._thread.start()
        # When the worker is garbage collected, its thread ends. At exit, ``finish`` below ends it.
        weakref.finalize(self, self._tasks.put, None).atexit = False


def _work(tasks: queue.SimpleQueue[Task | None]) -> None:
    thread, process = threading.current_thread(), os.getpid()

    def finish() -> None:
        if os.getpid() == process:  # a forked child inherits this, but not the thread
            tasks.put(None)
            thread.join()

    atexit.register(finish)
    while (task := tasks.get()) is not None:
        function, future = task
        if future.set_running_or_notify_cancel():
            try:
                with wired():
                    result = function()
                future.set_result(result)
                del result
            except BaseException as error:
                future.set_exception(error)
        del task, function, future  # otherwise the last result is kept until the next task
    mx.clear_streams()  # without this the process may abort when the thread ends
    atexit.unregister(finish)
