"""Tools for AI assistants over the Model Context Protocol: generate, score, edit, info.

Needs the extra "mcp". Hosts limit the result of a tool to about a megabyte and its time to about a
minute, so pictures are returned as file paths with small previews, and progress is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import threading
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError
from PIL import Image as Pictures
from pydantic import Field

from ..errors import StarflowError, UsageError
from ..generation.events import BlockProgress, Finished, Started
from ..generation.result import Result
from ..pictures.read import open_mask, open_picture
from ..pipeline import Pipeline
from ..version import __version__
from .gallery import Gallery
from .job import Drawn, Task
from .tasks import edit_task, score_task

T = TypeVar("T")
PREVIEW_SIDE = 256  # pixels
MOST_PICTURES = 4
MOST_PROMPTS = 16
INSTRUCTIONS = (
    "Draws pictures from a prompt with a normalizing flow on this computer. Call info first: "
    "small models know few words. Pictures are written to files; results contain their paths. The "
    "same seed and prompt give the same picture."
)

Prompt = Annotated[str, Field(description="What the picture shows.", max_length=4000)]
Seed = Annotated[int | None, Field(description="0 to 4294967295; none: random.", ge=0, lt=2**32)]
Guidance = Annotated[
    float | None,
    Field(description="Weight of the prompt; none: the model's default.", ge=0, le=100),
]
PicturePath = Annotated[str, Field(description="Path of a PNG, JPEG or WebP on this computer.")]
Box = Annotated[
    list[float] | None,
    Field(
        description="Part to redraw: left, top, right, bottom as fractions of the sides.",
        min_length=4,
        max_length=4,
    ),
]


def tool_server(pipe: Pipeline, folder: Path) -> MCPServer:
    """An MCP server for a model; start it with ``run("stdio")``. ``folder``: for pictures."""
    tools = _Tools(pipe, Gallery(folder))
    server = MCPServer("mlx-starflow", version=__version__, instructions=INSTRUCTIONS)
    for function in (tools.generate, tools.score, tools.edit, tools.info):
        server.tool(structured_output=False)(_in_words(function))
    return server


def _in_words(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The tool with StarflowErrors passed to the assistant with their message."""

    @functools.wraps(function)
    async def tool(*given: Any, **named: Any) -> Any:
        try:
            return await function(*given, **named)
        except StarflowError as error:
            raise ToolError(" ".join(str(error).split())) from None

    return tool


class _Tools:
    """The tools. Their docstrings are shown to the assistant."""

    def __init__(self, pipe: Pipeline, gallery: Gallery) -> None:
        self._pipe, self._gallery = pipe, gallery

    async def generate(
        self,
        prompt: Prompt,
        context: Context,
        seed: Seed = None,
        guidance: Guidance = None,
        num_images: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1,
    ) -> list[Any]:
        """Draw pictures from a prompt. Returns their paths, seeds and small previews."""
        asked = None if self._pipe.capabilities()["prompt"] == "none" else prompt
        cancel = threading.Event()
        told = _Progress(context)

        def draw() -> Result:
            events = self._pipe.stream(
                asked, seed, num_images=num_images, guidance=guidance, cancel=cancel
            )
            for event in events:
                told.follow(event)
                if isinstance(event, Finished):
                    return event.result
            raise UsageError("The work ended without a picture.")

        result = await _in_thread(draw, cancel, told)
        drawn = [
            Drawn(image, result.metadata_of(i), result.settings.seeds[i], None)
            for i, image in enumerate(result.images)
        ]
        return await self._kept(drawn, {"prompt": prompt})

    async def score(
        self,
        path: PicturePath,
        context: Context,
        prompts: Annotated[list[str] | None, Field(max_length=MOST_PROMPTS)] = None,
    ) -> list[Any]:
        """Compute the exact log-likelihood of a picture under each prompt, and which prompt fits
        best. Also returns a map of how surprising each part of the picture is to the model."""
        picture = await asyncio.to_thread(open_picture, path)
        record, chart = await self._run(
            score_task(picture.image, prompts or [], draws=4, seed=0), context
        )
        record["map"].pop("values")
        return [json.dumps(record), _preview(chart, 2 * PREVIEW_SIDE)]

    async def edit(
        self,
        path: PicturePath,
        prompt: Annotated[str, Field(description="What the whole finished picture shows.")],
        context: Context,
        box: Box = None,
        mask: Annotated[
            str | None,
            Field(description="Path of a mask of the same size: white is redrawn."),
        ] = None,
        seed: Seed = None,
        best_of: Annotated[int, Field(ge=1, le=8)] = 4,
    ) -> list[Any]:
        """Redraw part of a picture and keep the rest. Give either box or mask."""
        picture = await asyncio.to_thread(open_picture, path)
        image = picture.image
        if (box is None) == (mask is None):
            raise UsageError("Give either box or mask.")
        painted = (
            await asyncio.to_thread(open_mask, mask, image.size)
            if mask is not None
            else boxed(box or [], image.size)
        )
        first = 0 if seed is None else seed
        seeds = [(first + i) % 2**32 for i in range(best_of)]
        task = edit_task(image, painted, prompt, seeds, None, best_of > 1)
        drawn: list[Drawn] = await self._run(task, context)
        return await self._kept(drawn, {"prompt": prompt, "source": path})

    async def info(self) -> str:
        """What the loaded model can draw: its sizes, words, samplers and defaults."""
        return json.dumps({**self._pipe.capabilities(), "folder": str(self._gallery.folder)})

    async def _run(self, task: Task, context: Context) -> Any:
        """Run a task in the pipeline's thread and report its progress. Returns its result."""
        cancel, told = threading.Event(), _Progress(context)
        result: list[Any] = []
        done = object()

        def work() -> Any:
            steps = task(self._pipe)

            def step() -> Any:
                try:
                    return next(steps)
                except StopIteration as stop:
                    result.append(stop.value)
                    return done

            while (share := self._pipe.run(step)) is not done:
                told.share = share
                if cancel.is_set():
                    self._pipe.run(steps.close)
                    raise UsageError("The work was cancelled.")
            return result[0]

        return await _in_thread(work, cancel, told)

    async def _kept(self, drawn: list[Drawn], about: dict[str, Any]) -> list[Any]:
        rows, previews = [], []
        for one in drawn:
            kept = await asyncio.to_thread(self._gallery.save, one.image, one.metadata, ".png")
            rows.append({"path": str(kept.path), "seed": one.seed})
            previews.append(_preview(one.image, PREVIEW_SIDE))
        return [json.dumps({**about, "images": rows}), *previews]


class _Progress:
    """The progress of work in another thread, reported to the host from the event loop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.share = 0.0
        self._before: dict[str, tuple[float, float]] = {}

    def follow(self, event: Any) -> None:
        if isinstance(event, Started):
            before = 0.0
            for phase in event.phases:
                self._before[phase.name] = before, phase.share
                before += phase.share
        before, share = self._before[event.phase]
        if isinstance(event, BlockProgress):
            before += share * event.tokens_done / event.tokens_total
        self.share = max(self.share, before)

    async def tell(self) -> None:
        await self._context.report_progress(round(self.share, 3), 1.0)


async def _in_thread(work: Callable[[], T], cancel: threading.Event, told: _Progress) -> T:
    """Run work() in a thread and report its progress every second. Returns its result. The work is
    cancelled when the caller is."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        while not (await asyncio.wait({doing}, timeout=1.0))[0]:
            await told.tell()
        return await doing
    finally:
        cancel.set()
        if not doing.done():
            with contextlib.suppress(StarflowError):
                await asyncio.shield(doing)


def boxed(box: list[float], size: tuple[int, int]) -> np.ndarray:
    """A mask (height, width), True inside the box (left, top, right, bottom), given as fractions of
    the sides. ``size``: (width, height). Errors: UsageError."""
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise UsageError(
            f"box is {box}; expected left, top, right, bottom with 0 <= left < right <= 1 and "
            "0 <= top < bottom <= 1."
        )
    width, height = size
    mask = np.zeros((height, width), bool)
    rows = slice(round(top * height), max(round(bottom * height), round(top * height) + 1))
    columns = slice(round(left * width), max(round(right * width), round(left * width) + 1))
    mask[rows, columns] = True
    return mask


def _preview(image: Pictures.Image, side: int) -> Image:
    """A JPEG whose sides are at most ``side`` pixels, about ten kilobytes."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    content = BytesIO()
    small.save(content, format="JPEG", quality=80)
    return Image(data=content.getvalue(), format="jpeg")
