"""Calls that would block forever are refused: in a forked child and in a signal handler."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

import mlx_starflow as sf
from mlx_starflow.device.worker import Turn, Worker
from mlx_starflow.errors import UsageError

SECONDS = 20


def in_child(function) -> int:
    """Exit status of a forked child that runs function(); 99 where it hangs."""
    child = os.fork()
    if child == 0:
        status = 3
        try:
            status = function()
        finally:
            os._exit(status)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 99


def test_a_forked_child_of_a_used_pipeline_is_told(colours):
    with sf.load(colours) as pipe:
        pipe.generate("red", seed=1)

        def child() -> int:
            refused = 0
            for use in (
                lambda: pipe.generate("red", seed=1),
                lambda: list(pipe.stream("red", seed=1)),
                lambda: pipe.flow,
                lambda: pipe.encode_prompts(["red"]),
            ):
                try:
                    use()
                except UsageError as error:
                    refused += "forked" in str(error)
            pipe.close()  # nothing to be ended here
            return 0 if refused == 4 else 1

        assert in_child(child) == 0
        assert pipe.generate("red", seed=1).images  # the parent goes on


def test_a_child_forked_in_the_middle_of_a_call_is_told(colours):
    """Whatever lock another thread held when the process was forked."""
    with sf.load(colours) as pipe, pipe._turn.held(), pipe._worker._turn.held():

        def child() -> int:
            try:
                pipe.generate("red", seed=1)
            except UsageError:
                return 0
            return 1

        assert in_child(child) == 0


def test_a_signal_handler_that_generates_is_told(colours):
    with sf.load(colours) as pipe:
        pipe.generate("red", seed=1)
        told: list[str] = []
        busy = threading.Event()

        def handler(number: int, frame: object) -> None:
            if busy.is_set():
                return
            busy.set()
            try:
                pipe.generate("blue", seed=2)
            except UsageError as error:
                told.append(str(error))
            busy.clear()

        before = signal.signal(signal.SIGUSR1, handler)
        main = threading.get_ident()
        stop = threading.Event()

        def send() -> None:
            while not stop.wait(0.01) and not told:
                signal.pthread_kill(main, signal.SIGUSR1)

        sender = threading.Thread(target=send, daemon=True)
        try:
            sender.start()
            end = time.monotonic() + SECONDS
            while not told and time.monotonic() < end:
                pipe.generate("red", seed=1)
        finally:
            stop.set()
            sender.join()
            signal.signal(signal.SIGUSR1, before)
        assert "signal handler" in told[0]
        assert pipe.generate("red", seed=1).images


def test_a_turn_passes_between_threads():
    turn, order = Turn(), []

    def take(name: str) -> None:
        with turn.held():
            order.append(name)
            time.sleep(0.02)
            order.append(name)

    threads = [threading.Thread(target=take, args=(n,)) for n in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(order) == 6 and all(order[i] == order[i + 1] for i in (0, 2, 4))
    with turn.held(), pytest.raises(UsageError, match="signal handler"), turn.held():
        pass
    with turn.held():  # and it is free again
        pass


def test_closing_and_calling_at_once_never_waits_for_ever():
    for _ in range(200):
        worker = Worker("test")
        worker.call(lambda: None)
        ended = threading.Event()

        def call(worker: Worker = worker, ended: threading.Event = ended) -> None:
            with contextlib.suppress(UsageError):
                worker.call(lambda: 1)
            ended.set()

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        worker.close()
        assert ended.wait(5)
