"""The ranks of one job: their messages, and the end of all when one of them fails.

Every rank has one connection to rank 0 and sends a sign of life every second. A rank that ends
without a word, is silent, makes no progress or reports an error ends all: rank 0 tells it in one
sentence (if rank 0 itself is gone, rank 1 does), and every process leaves with status 1.
"""

from __future__ import annotations

import os
import platform
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

from ..errors import StarflowError
from .meeting import Peer, meet
from .messages import Message
from .place import Place
from .watching import Watch

BEAT = 1.0  # seconds between two signs of life
SILENCE = 15.0  # seconds without one after which a rank counts as lost
GRACE = 2.0  # seconds that rank 0 gets to report the same error itself
ASKED = ("take", "made")  # kinds of messages that rank 0 answers by a handler
TERMINATED = 3.0  # seconds after SIGTERM in which a peer's failure may still be told instead

Handler = Callable[[int, Message], tuple[str, dict[str, Any]] | None]


class Group:
    """The ranks, seen from one of them. Made in the main thread; use it as a context manager.

    ``tell`` shows the sentence about a rank that ended the job.
    """

    def __init__(self, place: Place, tell: Callable[[str], None]) -> None:
        self.rank, self.size, self.host = place.rank, place.size, platform.node()
        self._tell = tell
        self._peers = {peer.rank: peer for peer in meet(place)}
        self._inbox: dict[int, queue.Queue[Message]] = {r: queue.Queue() for r in self._peers}
        self._seen = dict.fromkeys(self._peers, time.monotonic())
        self._left: set[int] = set()
        self._served: set[int] = set()  # ranks whose message is just being handled
        self._gone = threading.Condition()
        self._handlers: dict[str, Handler] = {}
        self._early: dict[int, list[Message]] = {r: [] for r in self._peers}
        self._handling = threading.RLock()
        self._cleaning: list[Callable[[], None]] = []
        self.writing = threading.RLock()  # held while a file is written, so that none is cut off
        self._once = threading.Lock()
        self._failing, self._closed = threading.Event(), threading.Event()
        self._told = threading.Event()  # rank 0 has told why all ranks end
        self._watch = Watch()
        self._parent = os.getppid()
        self._signals, self._woken = socket.socketpair()
        self._before: tuple[Any, int] | None = None
        self._listen_to_signals()
        for peer in self._peers.values():
            threading.Thread(target=self._receive, args=(peer,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    # Messages

    @contextmanager
    def handling(self, handlers: dict[str, Handler]) -> Iterator[None]:
        """Rank 0, inside the ``with`` block: answer messages of a kind by ``handler(rank,
        message)``, which returns the reply or None. It runs in the thread that receives. Messages
        that came earlier are answered first."""
        with self._handling:
            self._handlers.update(handlers)
            for rank, early in list(self._early.items()):
                self._early[rank] = []
                for message in early:
                    self._answer(rank, message)
        try:
            yield
        finally:
            with self._handling:
                for kind in handlers:
                    del self._handlers[kind]

    def send(self, rank: int, kind: str, data: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Send a message to a rank that this one is connected to."""
        try:
            self._peers[rank].link.send(kind, data, blobs)
        except OSError:
            self._lost(self._peers[rank])
            self._closed.wait()  # the process is about to end

    def next_from(self, rank: int) -> Message:
        """The next message from a rank; waits for it."""
        with self.unwatched():
            return self._inbox[rank].get()

    def ask(self, kind: str, data: dict[str, Any], blobs: Sequence[bytes] = ()) -> Message:
        """Send a message to rank 0 and return its reply."""
        self.send(0, kind, data, blobs)
        return self.next_from(0)

    def share(self, value: Any) -> Any:
        """Rank 0's value, a value for JSON, on all ranks."""
        if self.rank == 0:
            for rank in self._peers:
                self.send(rank, "share", {"value": value})
            return value
        return self.next_from(0).data["value"]

    def gather(self, value: Any) -> list[Any]:
        """Rank 0: the values, for JSON, of all ranks in order; the others: []."""
        if self.rank:
            self.send(0, "gather", {"value": value})
            return []
        return [value, *(self.next_from(r).data["value"] for r in sorted(self._peers))]

    def meet(self) -> None:
        """Wait until all ranks are here."""
        self.gather(None)
        self.share(None)

    def name(self, rank: int) -> str:
        """A rank and its machine, for messages."""
        return f"Rank {rank} ({self.host})" if rank == self.rank else str(self._peers[rank])

    # Watching

    def step(self) -> None:
        """A sign that this rank's work goes on."""
        self._watch.step()

    def watched(self) -> AbstractContextManager[None]:
        """Inside the ``with`` block this rank ends the job when its work stands still or runs in
        circles (watching.py)."""
        return self._watch.watched()

    def unwatched(self) -> AbstractContextManager[None]:
        """Inside the ``with`` block this rank waits for others."""
        return self._watch.unwatched()

    def at_end(self, clean: Callable[[], None]) -> None:
        """Call ``clean`` before this process is ended."""
        self._cleaning.append(clean)

    # The end

    def failed(self, message: str, status: int) -> None:
        """Tell the others that this rank ends with an error, which ends them too."""
        self._failing.set()
        if self._closed.is_set():
            return
        kind = "failed" if self.rank else "end"
        for peer in self._peers.values():
            try:
                peer.link.send(kind, {"message": message, "status": status})
            except OSError:
                continue

    def await_end(self) -> None:
        """A peer is lost: wait until the watching thread has found out which, and ends all."""
        self._closed.wait(SILENCE + BEAT + GRACE)

    def leave(self) -> None:
        """The job is done: wait until all ranks say so, and close the connections."""
        for rank in self._peers:
            self.send(rank, "left", {})
        with self._gone:
            while len(self._left) < len(self._peers):
                self._gone.wait(1.0)
        self._closed.set()
        self._restore_signals()
        for peer in self._peers.values():
            peer.link.close()

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self.leave()

    # Threads

    def _receive(self, peer: Peer) -> None:
        try:
            while (message := peer.link.receive()) is not None:
                self._served.add(peer.rank)
                self._take(peer, message)
                self._seen[peer.rank] = time.monotonic()
                self._served.discard(peer.rank)
        except (OSError, StarflowError):
            pass
        if peer.rank not in self._left:
            self._lost(peer)

    def _take(self, peer: Peer, message: Message) -> None:
        if message.kind == "beat":
            return
        if message.kind == "end":
            # mlx.launch ends all when the first rank has ended: let rank 0 be that one.
            self._told.set()
            late = threading.Timer(TERMINATED, self._end, [None])
            late.daemon = True
            late.start()
            return
        if message.kind == "failed":
            if self._failing.wait(GRACE):
                return  # rank 0 has the error too and reports it
            self._end(f"{peer}: {message.data.get('message')}")
        if message.kind == "left":
            with self._gone:
                self._left.add(peer.rank)
                self._gone.notify_all()
        elif message.kind in ASKED:
            with self._handling:
                if message.kind not in self._handlers:
                    self._early[peer.rank].append(message)
                    return
            self._answer(peer.rank, message)
        else:
            self._inbox[peer.rank].put(message)

    def _answer(self, rank: int, message: Message) -> None:
        try:
            reply = self._handlers[message.kind](rank, message)
        except StarflowError as error:
            self._end(str(error))
            return
        except OSError as error:
            self._end(f"{error.filename or 'A file'} cannot be written ({error.strerror})")
            return
        if reply is not None:
            self.send(rank, *reply)

    def _beat(self) -> None:
        terminated: float | None = None
        self._woken.settimeout(BEAT)
        while not self._closed.is_set():
            try:
                if signal.SIGTERM in self._woken.recv(64) and terminated is None:
                    terminated = time.monotonic()
                    self._woken.settimeout(0.2)
            except TimeoutError:
                pass
            except OSError:
                return
            for peer in self._peers.values():
                try:
                    peer.link.send("beat")
                except OSError:
                    continue  # the receiving thread sees it too
                silent = time.monotonic() - self._seen[peer.rank]
                if silent > SILENCE and peer.rank not in self._served | self._left:
                    silence = f"{peer} has not answered for {SILENCE:.0f} s"
                    self._end(silence if self.rank in (0, 1) else None)
            self._check_own(terminated)

    def _check_own(self, terminated: float | None) -> None:
        now = time.monotonic()
        if terminated is not None and now - terminated > TERMINATED:
            if self._failing.is_set():
                os._exit(1)  # it has told why it ends
            self._end_from_here("was terminated")
        if os.getppid() != self._parent:
            self._end_from_here("has lost the program that started it")
        wrong = self._watch.verdict()
        if wrong is not None:
            self._end_from_here(wrong)

    def _end_from_here(self, what: str) -> None:
        """End the job because of this rank."""
        if self.rank == 0:
            self._end(f"{self.name(0)} {what}")
        self.failed(f"it {what}", 1)
        time.sleep(GRACE + 1.0)  # rank 0 tells it, and ends this process too
        self._end(None)

    def _lost(self, peer: Peer) -> None:
        if self._closed.is_set() or self._failing.is_set():
            return
        sentence = f"{peer} ended without a word (killed, or out of memory)"
        tells = self.rank in (0, 1) and not self._told.is_set()
        self._end(sentence if tells else None)

    def _end(self, sentence: str | None) -> None:
        """Tell the sentence, end the other ranks, and leave this process with status 1."""
        if not self._once.acquire(blocking=False):
            threading.Event().wait()  # another thread is doing it
        if self._failing.is_set() and self.rank == 0:
            return
        held = self.writing.acquire(timeout=5.0)
        if sentence is not None:
            self._tell(f"{sentence.rstrip('.')}. All ranks have ended.")
        for peer in self._peers.values():
            try:
                peer.link.limit(1.0)
                peer.link.send("end", {"message": sentence or "", "status": 1})
            except OSError:
                continue
        for clean in self._cleaning:
            clean()
        if held:
            self.writing.release()
        os._exit(1)

    def _listen_to_signals(self) -> None:
        """Wake the watching thread for SIGTERM, by which mlx.launch ends the ranks when one has
        failed: the sentence about that one must come first."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._signals.setblocking(False)
        handler = signal.signal(signal.SIGTERM, lambda *_: None)
        self._before = handler, signal.set_wakeup_fd(self._signals.fileno())

    def _restore_signals(self) -> None:
        if self._before is None or threading.current_thread() is not threading.main_thread():
            return
        handler, wakeup = self._before
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, handler)
        self._before = None
