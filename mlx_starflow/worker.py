"""One thread that does all of a pipeline's work.

MLX ties streams, compiled functions and unevaluated arrays to the thread that made them. A
pipeline is called from any thread, and an application may advance one stream of events from
several; so the work itself stays in one thread, which also lines up the calls of many.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .errors import UsageError

T = TypeVar("T")


class Worker:
    """Runs functions one after another in its own thread, which starts with the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._closed = False
        self._pool: ThreadPoolExecutor | None = None
        self._thread: threading.Thread | None = None

    @property
    def closed(self) -> bool:
        return self._closed

    def call(self, function: Callable[[], T]) -> T:
        """The result of function(), run in the worker's thread; its errors are raised here.

        Raises UsageError after ``close``. A KeyboardInterrupt while waiting leaves at once: the
        function, which cannot be stopped from outside, ends by itself and its result is dropped.
        """
        if threading.current_thread() is self._thread:
            return function()
        with self._lock:
            if self._closed:
                raise UsageError("This pipeline is closed; load it again to use it.")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, self._name, initializer=self._remember)
            future = self._pool.submit(function)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # no effect once it runs
            raise

    def post(self, function: Callable[[], object]) -> None:
        """Run function() after what waits already, without waiting for it."""
        with self._lock:
            if self._pool is not None and not self._closed:
                self._pool.submit(function)

    def close(self) -> None:
        """Let the thread end after the calls that wait; further calls are refused."""
        with self._lock:
            self._closed = True
            if self._pool is not None:
                self._pool.shutdown(wait=False)

    def _remember(self) -> None:
        self._thread = threading.current_thread()
