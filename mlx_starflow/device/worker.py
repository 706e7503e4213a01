"""One thread that does all of a pipeline's work.

MLX ties streams, compiled functions and unevaluated arrays to the thread that made them. A
pipeline is called from any thread, and an application may advance one stream of events from
several; so the work itself stays in one thread, which also lines up the calls of many.

Two ways of calling would wait for ever and are refused instead: from a child process, which has no
copy of the thread (``os.fork`` copies only the thread that called it), and from a signal handler
that interrupted a call which holds what it needs.
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
from .wired import wired

T = TypeVar("T")
Task = tuple[Callable[[], object], Future[Any]]
AWAKE = 0.2  # seconds after which a waiting thread looks whether it was interrupted
POLL = 0.05  # seconds between two tries for a turn


class Turn:
    """One holder after another, as a lock; but a thread that holds it already is told so."""

    def __init__(self) -> None:
        self._lock, self._held = threading.RLock(), False

    @contextmanager
    def held(self, while_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Wait for the turn, calling ``while_waiting`` now and then, and hold it for the block.

        Errors: UsageError where this thread holds it, as in a signal handler that interrupted it.
        """
        while not self._lock.acquire(timeout=POLL):
            while_waiting()
        try:
            if self._held:  # by this thread: another one's hold was waited for
                raise UsageError(
                    "This pipeline was called again by the thread whose call is not finished, as "
                    "from a signal handler; that would wait for ever. Set a flag in the handler, "
                    "and call the pipeline after it."
                )
            self._held = True
            try:
                yield
            finally:
                self._held = False
        finally:
            self._lock.release()


class Worker:
    """Runs functions one after another in its own thread, which starts with the first of them, each
    with MLX's memory wired."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = os.getpid()
        self._turn = Turn()  # to change what follows
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether there is nothing to be ended here: it was closed, or belongs to the parent."""
        return self._closed or self._forked

    @property
    def _forked(self) -> bool:
        return os.getpid() != self._process

    def check_process(self) -> None:
        """UsageError in a process that was forked from the one that the worker belongs to."""
        if self._forked:
            raise UsageError(
                "This pipeline was loaded before the process was forked, and cannot be used in "
                "the child. Start processes with the method 'spawn', and load it there."
            )

    def call(self, function: Callable[[], T]) -> T:
        """The result of function(), run in the worker's thread; its errors are raised here.

        Raises UsageError after ``close`` and in a forked child. A KeyboardInterrupt while waiting
        leaves at once: the function, which cannot be stopped from outside, ends by itself and its
        result is dropped.
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
            # Not one long wait: a signal that comes just before it begins would not end it.
            while not wait([future], AWAKE).done:
                pass
            return future.result()
        except BaseException:
            future.cancel()  # no effect once it runs
            raise

    def post(self, function: Callable[[], object]) -> None:
        """Run function() after what waits already, without waiting for it."""
        if self._thread is not None and not self.closed:
            self._tasks.put((function, Future()))

    def close(self, wait: bool = True) -> None:
        """End the thread after what waits already; further calls are refused."""
        if self._forked:
            return
        with self._turn.held():
            self._closed = True
            self._tasks.put(None)
        if wait and self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join()

    def _start(self) -> None:
        # A daemon, since Python joins other threads before anything could tell this one to end.
        self._thread = threading.Thread(
            target=_work, args=(self._tasks,), name=self._name, daemon=True
        )
        self._thread.start()
        # A worker that is forgotten ends its thread; nobody waits for that but Python's own end.
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
        del task, function, future  # or the last result would live until the next task
    mx.clear_streams()  # a thread that leaves this to MLX may abort the process at its end
    atexit.unregister(finish)
