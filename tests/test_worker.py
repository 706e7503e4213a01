"""The worker thread of a pipeline, and what its callers receive."""

import signal
import threading
import time

import pytest

from mlx_starflow.device.worker import Worker


def test_an_interrupt_that_does_not_wake_the_waiting_thread_is_heard():
    # As when Ctrl-C comes just before the wait begins: the handler is due, nothing wakes up.
    worker, end = Worker("test"), threading.Event()

    def busy() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        end.wait(5)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        worker.call(busy)
    assert time.monotonic() - began < 2
    end.set()
    worker.close()


def test_results_and_errors_come_back():
    worker = Worker("test")
    assert worker.call(lambda: 3) == 3

    def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        worker.call(late)
    worker.close()
