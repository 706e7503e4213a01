"""Aligned columns of text."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence

_WIDE = 100_000  # characters; rows are never wrapped, since they may be piped


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Rows of cells as text with aligned columns. ``left``: indices of the columns that are aligned
    to the left; the others are aligned to the right. Wide characters count as two."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for i in range(len(rows[0])):
        table.add_column(justify="left" if i in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out = io.StringIO()
    Console(file=out, width=_WIDE, color_system=None, legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
