"""``--help`` in sections, without the column width that would cut long names of options."""

from __future__ import annotations

from typing import Any

import typer.core


class SectionedCommand(typer.core.TyperCommand):
    """A command whose help groups the options by panel, in order of appearance."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                panel = getattr(param, "rich_help_panel", None) or "Options"
                sections.setdefault(panel, []).append(record)
        for title in sorted(sections, key=lambda title: title == "Options"):  # --help comes last
            with formatter.section(title):
                formatter.write_dl(sections[title])
