"""Two ranks in network namespaces whose link has a delay of 1 ms. Needs root, ip and
/dev/net/tun."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from command import run  # noqa: F401
from delayed_link import DelayedLink
from ranked import COMMAND, Ranks, on_ranks
from test_ranks import alone, ended_well, kill_when, prompts, same_pictures  # noqa: F401
from test_ranks_split import PROGRAM, check

pytestmark = pytest.mark.slow
DELAY = 1e-3  # seconds, one way


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def places():
    """Two namespaces: the addresses in them, and what runs a command there."""
    if not shutil.which("ip") or os.geteuid() or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root, ip and /dev/net/tun")
    names = [f"ranks{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
    except subprocess.CalledProcessError:
        pytest.skip("network namespaces are not allowed here")
    try:
        ends = [f"v{os.getpid() % 100000}{side}" for side in "ab"]
        link = DelayedLink((ends[0], ends[1]), DELAY)
        found = []
        for i, (name, end) in enumerate(zip(names, ends, strict=True)):
            ip("link", "set", end, "netns", name)
            own, other = f"10.77.0.{i + 1}", f"10.77.0.{2 - i}"
            ip("-n", name, "addr", "add", own, "peer", other, "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
            found.append((own, ["ip", "netns", "exec", name]))
        yield found
        link.close()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_pictures_and_a_killed_rank(alone, places, colours, tmp_path):  # noqa: F811
    line = ["generate", "--prompt-file", prompts(tmp_path, 12), "--seed", "5", "-m", colours]
    one, many = tmp_path / "one", tmp_path / "many"
    alone(*line, "-o", one / "a.png", cwd=tmp_path)
    on_ranks(2, *COMMAND, *line, "-o", many / "a.png", places=places)
    assert len(same_pictures(one, many)) == 12
    ranks = Ranks(2, *COMMAND, *line, "-o", tmp_path / "cut" / "a.png", places=places)
    kill_when(ranks, tmp_path / "cut", 3, 1)
    ended_well(ranks.wait(), 1, tmp_path / "cut")


def test_divided_models(places):
    for kind, families in (("guidance", ["released", "clips"]), ("tensor", ["released"])):
        ends = on_ranks(2, PROGRAM, kind, *families, places=places)
        check([json.loads(end.out) for end in ends])


def test_the_delay_is_measured(places):
    (first, _) = on_ranks(2, *COMMAND, "doctor", "--json", places=places)
    found = json.loads(first.out)
    assert found["ranks"] == 2
    assert DELAY <= found["latency_seconds"] < 4 * DELAY
