"""One thread that does all of a pipeline's work.

MLX ties streams, compiled functions and unevaluated arrays to the thread that made them. A
pipeline is called from any thread, and an application may advance one stream of events from
several; so the work itself stays in one thread, which also lines up the calls of many.
"""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

import mlx.core as mx

from ..errors import UsageError

T = TypeVar("T")
Task = tuple[Callable[[], object], Future]
AWAKE = 0.2  # seconds after which a waiting thread looks whether it was interrupted


class Worker:
    """Runs functions one after another in its own thread, which starts with the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.closed = False

    def call(self, function: Callable[[], T]) -> T:
        """The result of function(), run in the worker's thread; its errors are raised here.

        Raises UsageError after ``close``. A KeyboardInterrupt while waiting leaves at once: the
        function, which cannot be stopped from outside, ends by itself and its result is dropped.
        """
        if threading.current_thread() is self._thread:
            return function()
        with self._lock:
            if self.closed:
                raise UsageError("This pipeline is closed; load it again to use it.")
            if self._thread is None:
                self._start()
            future: Future = Future()
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
        with self._lock:
            if self._thread is not None and not self.closed:
                self._tasks.put((function, Future()))

    def close(self, wait: bool = True) -> None:
        """End the thread after what waits already; further calls are refused."""
        with self._lock:
            self.closed = True
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
    thread = threading.current_thread()

    def finish() -> None:
        tasks.put(None)
        thread.join()

    atexit.register(finish)
    while (task := tasks.get()) is not None:
        function, future = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
        del task, function, future  # or the last result would live until the next task
    mx.clear_streams()  # a thread that leaves this to MLX may abort the process at its end
    atexit.unregister(finish)
