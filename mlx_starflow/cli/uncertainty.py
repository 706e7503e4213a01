"""``generate --uncertainty``: numbers and maps for a finished batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from ..editing.uncertainty import uncertainty
from ..generation.result import Result
from ..pictures.heatmap import heatmap
from ..pictures.metadata import save_picture
from ..pipeline import Pipeline
from .job import Batch


def add_uncertainty(
    pipe: Pipeline, result: Result, batch: Batch, records: list[dict[str, Any]], files: list[str]
) -> None:
    """Add the uncertainty to the record of each saved picture, and save its maps beside it: the
    standard deviation above, the surprise below. Appends the paths to ``files``."""
    found = uncertainty(pipe, result)
    for record, i in zip(records, batch.keep or range(len(batch.seeds)), strict=True):
        path = Path(record["path"])
        above = heatmap(result.images[i], found[i].sigma, "sigma")
        below = heatmap(result.images[i], found[i].surprise, "nats/token")
        sheet = Image.new("RGB", (above.width, above.height + below.height), "white")
        sheet.paste(above, (0, 0))
        sheet.paste(below, (0, above.height))
        place = path.with_name(f"{path.stem}_uncertainty.png")
        written = str(save_picture(sheet, place, overwrite=False))
        record["uncertainty"] = {**found[i].to_dict(), "map": written}
        files.append(written)
