"""Messages and progress while a model is downloaded and converted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..files.counted import counted
from ..hub.acquire import acquire as acquire_model
from ..hub.download import DownloadPlan, DownloadProgress
from ..hub.resolve import ConversionStarted
from .console import Console


def acquire(model: str | None, quantize: int | str | None, console: Console) -> Path:
    """The directory of a model's bundle, downloaded and converted if necessary."""
    try:
        return acquire_model(model, quantize, Fetching(console))
    finally:
        console.clear()


class Fetching:
    """Receives the events of ``hub.resolve`` and the converter, and shows them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._bytes = 0  # of all files to download
        self._arrived: dict[str, int] = {}

    def __call__(self, event: Any) -> None:
        if isinstance(event, DownloadPlan):
            self._bytes, self._began = event.bytes, time.monotonic()
            self._console.say(
                f"{event.model}: downloading {event.bytes / 1e9:.2f} GB in "
                f"{counted(len(event.files), 'file')} to {event.directory}. Licence: "
                f"{event.licence or 'not stated'}"
            )
        elif isinstance(event, DownloadProgress):
            self._arrived[f"{event.file.repository}/{event.file.name}"] = event.done
            self._draw("download", sum(self._arrived.values()), self._bytes)
        elif isinstance(event, ConversionStarted):
            self._began = time.monotonic()
            self._console.say(f"{event.model}: converting to {event.output} (once)")
        elif hasattr(event, "done"):  # the converter's progress
            self._draw(f"convert {event.phase}".replace("_", " "), event.done, event.total)

    def _draw(self, phase: str, done: int, total: int) -> None:
        share = min(done / total, 1.0) if total else 0.0
        left = (time.monotonic() - self._began) * (1 - share) / share if share > 0.01 else None
        self._console.draw(phase, f"{done / 1e9:.2f}/{total / 1e9:.2f} GB", share, left)
