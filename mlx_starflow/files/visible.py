"""Text from outside, made safe to show: control characters appear as escapes and do nothing.

A prompt, a file name or a licence may hold sequences that set a terminal's title, write to the
clipboard, move the cursor or reverse the direction of the text.
"""

from __future__ import annotations

import re

# C0 and C1 controls but for tab and newline; line and paragraph separators; marks, overrides and
# isolates of writing direction; other invisible format characters; halves of surrogate pairs.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with everything that a terminal would obey written as \\x1b, \\u202e, ..."""
    return _HIDDEN.sub(lambda match: ascii(match[0])[1:-1], text)
