"""The tool server, asked by the protocol's own client over standard input and output."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image


async def conversation(model, folder, talk):
    """Start the command as a host does, and talk to it."""
    # Here and not above, since every process that collects the tests would spend a second on it.
    mcp = pytest.importorskip("mcp", reason="the extra [mcp] is not installed")
    server = mcp.StdioServerParameters(
        command=sys.executable,
        args=[
            "-m",
            "mlx_starflow",
            "mcp",
            "--model",
            str(model),
            "--output",
            str(folder),
            "--quiet",
        ],
    )
    async with mcp.stdio_client(server) as streams, mcp.ClientSession(*streams) as session:
        await session.initialize()
        return await talk(session)


def text_of(result) -> dict:
    return json.loads(next(part.text for part in result.content if part.type == "text"))


def pictures_of(result) -> list[Image.Image]:
    data = [base64.b64decode(part.data) for part in result.content if part.type == "image"]
    assert sum(map(len, data)) < 200_000  # hosts cap results near a megabyte
    return [Image.open(BytesIO(one)) for one in data]


def test_an_assistant_draws_scores_and_edits(colours, tmp_path):
    folder = tmp_path / "pictures"
    heard = []

    async def talk(session):
        listed = await session.list_tools()
        tools = {tool.name: tool for tool in listed.tools}
        assert set(tools) == {"generate", "score", "edit", "info"}
        assert all(tool.description for tool in tools.values())
        schema = tools["generate"].model_dump(by_alias=True)["inputSchema"]
        assert schema["required"] == ["prompt"] and "context" not in schema["properties"]

        info = text_of(await session.call_tool("info", {}))
        assert info["vocabulary"]["kinds"]["class"][0] == "red"

        async def progress(done, total, message):
            heard.append((done, total))

        drawn = await session.call_tool(
            "generate", {"prompt": "red", "seed": 7, "num_images": 2}, progress_callback=progress
        )
        rows = text_of(drawn)["images"]
        assert [row["seed"] for row in rows] == [7, 8]
        assert [p.size for p in pictures_of(drawn)] == [(12, 12)] * 2
        path = rows[0]["path"]
        assert path.startswith(str(folder)) and Image.open(path).size == (12, 12)

        scored = await session.call_tool("score", {"path": path, "prompts": ["red", "blue"]})
        assert len(text_of(scored)["prompts"]) == 2 and len(pictures_of(scored)) == 1

        edited = await session.call_tool(
            "edit", {"path": path, "prompt": "blue", "box": [0.5, 0, 1, 1], "best_of": 2}
        )
        made = text_of(edited)["images"][0]["path"]
        old, new = (np.asarray(Image.open(p).convert("RGB"), int) for p in (path, made))
        assert (old[:, :6] == new[:, :6]).all() and (old[:, 6:] != new[:, 6:]).any()

        for name, arguments, says in (
            ("generate", {"prompt": "purple"}, "no class"),
            ("generate", {"prompt": "red", "num_images": 99}, "num_images"),
            ("generate", {"prompt": "red", "seed": -1}, "seed"),
            ("score", {"path": str(tmp_path / "none.png")}, "no such file"),
            ("score", {"path": str(colours / "config.json")}, "not a picture"),
            ("edit", {"path": path, "prompt": "red"}, "either box or mask"),
            ("edit", {"path": path, "prompt": "red", "box": [1, 1, 0, 0]}, "left < right"),
        ):
            failed = await session.call_tool(name, arguments)
            assert failed.is_error, (name, arguments)
            assert says in failed.content[0].text, failed.content[0].text
        assert len(list(folder.iterdir())) == 3

    asyncio.run(conversation(colours, folder, talk))
