"""``mlx-starflow serve`` on several ranks: rank 0 listens, the others draw parts of its batches."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from ..errors import StarflowError
from ..generation.result import Result
from ..pictures.opening import picture_in
from ..pipeline import Pipeline
from ..ranks import Group, agree

if TYPE_CHECKING:
    from ..server.helpers import Collect
    from ..server.job import Item


def agree_to_serve(group: Group, pipe: Pipeline) -> None:
    """Errors: StarflowError naming a rank with another model or other adapters."""
    parts = [pipe.fingerprint_of(name) for name in ("flow", "vae", "text_encoder")]
    adapters = [[record["weights"], record["scale"]] for record in pipe.adapters]
    facts = {
        "adapters": json.dumps(adapters),
        "model": f"{pipe.config.name} ({' '.join(p for p in parts if p)})",
    }
    agree(group, facts)


def help_to_serve(group: Group, pipe: Pipeline) -> None:
    """Draw what rank 0 sends until it stops."""
    from ..server.helpers import gains_of

    _ = pipe.text_encoder, pipe.flow, pipe.vae
    while (message := group.next_from(0)).kind == "draw":
        asked = message.data
        try:
            with group.watched():
                result = _drawn(group, pipe, asked)
        except StarflowError as error:
            group.send(0, "drawn", {"error": str(error)})
            continue
        gains, rows, blobs = gains_of(pipe, result), [], []
        for i, image in enumerate(result.images):
            content = io.BytesIO()
            image.save(content, format="PNG")
            blobs.append(content.getvalue())
            rows.append({"metadata": result.metadata_of(i), "seed": result.settings.seeds[i],
                         "gain": gains[i]})  # fmt: skip
        group.send(0, "drawn", {"rows": rows}, blobs)


def _drawn(group: Group, pipe: Pipeline, asked: dict[str, Any]) -> Result:
    from ..generation.events import Finished

    found: Result | None = None
    for event in pipe.stream(asked["prompts"], asked["seeds"], **asked["options"]):
        group.step()
        if isinstance(event, Finished):
            found = event.result
    if found is None:
        raise StarflowError("Nothing was drawn.")
    return found


class RankHelpers:
    """The other ranks, seen from the drawing thread of rank 0."""

    def __init__(self, group: Group) -> None:
        self._group, self.count = group, group.size - 1

    def start(self, parts: list[list[Item]]) -> Collect:
        from ..server.helpers import request_of
        from ..server.job import Drawn

        for rank, part in enumerate(parts, start=1):
            self._group.send(rank, "draw", request_of(part))

        def collect() -> list[tuple[Item, Drawn]]:
            drawn: list[tuple[Item, Drawn]] = []
            errors = []
            for rank, part in enumerate(parts, start=1):
                message = self._group.next_from(rank)
                if "error" in message.data:
                    errors.append(str(message.data["error"]))
                    continue
                rows = zip(part, message.data["rows"], message.blobs, strict=True)
                for item, row, blob in rows:
                    image = picture_in(blob, f"the picture of rank {rank}")
                    drawn.append((item, Drawn(image, row["metadata"], row["seed"], row["gain"])))
            if errors:
                raise StarflowError(errors[0])
            return drawn

        return collect

    def stop(self) -> None:
        """Let the other ranks end."""
        for rank in range(1, self.count + 1):
            self._group.send(rank, "stop", {})
