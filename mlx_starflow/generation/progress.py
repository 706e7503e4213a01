"""The progress of a request, from its events, and a progress bar for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from .events import BlockDone, BlockProgress, Event, Finished, FramesDecoded, Phase, Started


class Share:
    """Computes the fraction of a batch that is done, from the shares in ``Started.phases``."""

    def __init__(self) -> None:
        self._phases: tuple[Phase, ...] = ()

    def after(self, event: Event) -> float:
        """The fraction that is done after this event, from 0 to 1."""
        if isinstance(event, Started):
            self._phases = event.phases
        if isinstance(event, Finished):
            return 1.0
        within = 0.0
        if isinstance(event, BlockProgress):
            within = event.tokens_done / event.tokens_total
        elif isinstance(event, FramesDecoded):
            within = (event.first + len(event.frames)) / event.total
        elif isinstance(event, BlockDone):
            within = 1.0
        before = 0.0
        for phase in self._phases:
            if phase.name == event.phase:
                return before + within * phase.share
            before += phase.share
        return 0.0


def shown(events: Iterator[Event]) -> Iterator[Event]:
    """Yields the events and shows a tqdm progress bar: a widget in a notebook, text elsewhere."""
    from tqdm.auto import tqdm

    share = Share()
    form = "{desc:<12} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, bar_format=form, leave=False) as bar:
        for event in events:
            bar.set_description_str(event.phase, refresh=False)
            bar.update(max(share.after(event) - bar.n, 0.0))
            yield event


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. Imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
