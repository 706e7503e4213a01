"""Untrusted text made safe to display: control characters are shown as escapes.

A prompt, a file name or a licence may contain sequences that set a terminal's title, write to the
clipboard, move the cursor or reverse the direction of the text.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

# C0 and C1 controls except tab and newline; line and paragraph separators; marks, overrides and
# isolates of writing direction; other invisible format characters; surrogates.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with control and invisible characters written as \\x1b, \\u202e, ..."""
    return _HIDDEN.sub(lambda match: ascii(match[0])[1:-1], text)


class VisibleStream:
    """A text stream that writes to another one through ``visible``."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def raw(stream: Any) -> Any:
    """The stream below a ``VisibleStream``, for a progress bar's cursor movements. Write only text
    to it that this program made or that has gone through ``visible``."""
    return stream._stream if isinstance(stream, VisibleStream) else stream


@contextlib.contextmanager
def visible_output() -> Iterator[None]:
    """Wrap standard output and error in a ``VisibleStream`` inside the ``with`` block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (s and VisibleStream(s) for s in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
