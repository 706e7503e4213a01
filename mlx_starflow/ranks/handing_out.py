"""A list of work that ranks take one by one, so that a slow rank does not hold up the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .group import Group
from .messages import Message


@dataclass(frozen=True)
class Made:
    """What the work on one item made: a value for JSON, and files as bytes."""

    data: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def spread(
    group: Group,
    items: int,
    work: Callable[[int], Made],
    keep: Callable[[int, Made], None],
    in_order: bool = False,
) -> None:
    """Do ``work`` on the items 0 ... items - 1, each on one rank, and ``keep`` what it made on
    rank 0.

    Rank 0 takes part in the work. ``keep`` is called by one thread at a time, as soon as an item is
    done; with ``in_order`` not before those of all earlier items. Returns on every rank when all
    items are kept.
    """
    if group.rank:
        _help(group, work)
        return
    desk = _Desk(group, items, keep, in_order)
    with group.handling({"take": desk.take, "made": desk.made}), group.watched():
        while (index := desk.next()) is not None:
            desk.done(index, work(index))
            group.step()
        with group.unwatched():
            desk.finish()


def _help(group: Group, work: Callable[[int], Made]) -> None:
    """Take items from rank 0 until there are none."""
    with group.watched():
        while (item := group.ask("take", {}).data["item"]) is not None:
            made = work(item)
            group.send(0, "made", {"item": item, "made": made.data}, made.blobs)
            group.step()


class _Desk:
    """Rank 0's list: what is still to be taken, and what is kept."""

    def __init__(
        self, group: Group, items: int, keep: Callable[[int, Made], None], in_order: bool
    ) -> None:
        self._group, self._items, self._keep = group, items, keep
        self._next = 0
        self._waiting: dict[int, Made] = {}
        self._kept = self._sent_away = 0
        self._in_order = in_order
        self._changed = threading.Condition()

    def next(self) -> int | None:
        """The next item to work on; None if all are taken."""
        with self._changed:
            if self._next == self._items:
                return None
            self._next += 1
            return self._next - 1

    def take(self, rank: int, _: Message) -> tuple[str, dict[str, Any]]:
        """Answer to a rank that asks for work."""
        item = self.next()
        if item is None:
            with self._changed:
                self._sent_away += 1
                self._changed.notify_all()
        return "item", {"item": item}

    def made(self, rank: int, message: Message) -> None:
        """Keep what a rank has made."""
        self.done(message.data["item"], Made(message.data["made"], message.blobs))

    def done(self, index: int, made: Made) -> None:
        """Keep what an item made, now or when the earlier ones are kept."""
        with self._group.writing, self._changed:
            self._waiting[index] = made
            ready = [self._kept] if self._in_order else [index]
            while ready and ready[0] in self._waiting:
                self._keep(ready[0], self._waiting.pop(ready[0]))
                self._kept += 1
                ready = [self._kept] if self._in_order else []
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until everything is kept, and every other rank knows that nothing is left."""
        with self._changed:
            while self._kept < self._items or self._sent_away < self._group.size - 1:
                self._changed.wait(1.0)
