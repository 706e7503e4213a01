"""A server on two ranks draws the parts of a batch on both."""

from __future__ import annotations

import re
import signal

import httpx
import numpy as np
from ranked import COMMAND, Ranks
from serving import picture

import mlx_starflow as sf


def test_a_batch_is_drawn_by_both_ranks(colours, tmp_path):
    line = ["serve", "-m", colours, "--port", "0", "-o", tmp_path / "pictures"]
    ranks = Ranks(2, *COMMAND, *line)
    first = ranks.processes[0]
    told = first.stderr.readline()
    url = re.search(r"http://\S+", told)[0]
    wish = {"prompt": "red", "seed": 7, "n": 3, "stream": False}
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        found = client.post("/api/generate", json=wish).json()["pictures"]
        refused = client.post("/api/generate", json={**wish, "aspect_ratio": "7:1"})
        again = client.post("/api/generate", json=wish).json()["pictures"]
        images = [picture(client.get(row["url"]).content) for row in (*found, *again)]
    first.send_signal(signal.SIGINT)
    ends = ranks.wait(30)
    assert ends[0].status == 130 and "Stopped" in ends[0].err and ends[1].status == 1
    assert not ends[1].err and refused.status_code == 400
    with sf.load(colours) as pipe:
        parts = [pipe.generate(["red"], [7]), pipe.generate(["red"] * 2, [8, 9])]
    wanted = [np.asarray(image) for part in parts for image in part.images]
    assert [row["seed"] for row in (*found, *again)] == [7, 8, 9] * 2
    for image, right in zip(images, wanted * 2, strict=True):
        assert np.array_equal(np.asarray(image), right)
