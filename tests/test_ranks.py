"""Pictures, scores and trainings over several ranks are those of one process; a rank that fails
ends all of them."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image
from ranked import COMMAND, ROOT, Ranks, on_ranks
from teaching import adapter, pictures

from mlx_starflow.errors import UsageError
from mlx_starflow.pictures.metadata import read_metadata
from mlx_starflow.ranks import place_of
from mlx_starflow.ranks.launching import hosts_in

OF_THE_RUN = ("seconds", "created_at", "peak_memory_bytes", "blocks")


@pytest.fixture
def alone(run, monkeypatch):  # noqa: F811
    """A function that runs the command in this process alone. Returns its standard output."""

    def call(*arguments, cwd) -> str:
        monkeypatch.chdir(cwd)
        done = run(*arguments)
        assert done.status == 0, done.err
        return done.out

    return call


def prompts(folder: Path, count: int) -> Path:
    file = folder / "prompts.txt"
    file.write_text("\n".join(("red", "green", "blue")[i % 3] for i in range(count)) + "\n")
    return file


def same_pictures(one: Path, other: Path) -> list[str]:
    """The names in both folders; every picture and its settings must be the same."""
    names = sorted(p.name for p in one.iterdir())
    assert sorted(p.name for p in other.iterdir()) == names
    for name in names:
        if name.endswith(".png"):
            assert np.array_equal(np.asarray(Image.open(one / name)),
                                  np.asarray(Image.open(other / name))), name  # fmt: skip
            if "_grid" in name or "strip" in name or "step" in name:
                continue
            a, b = read_metadata(one / name), read_metadata(other / name)
            assert {k: v for k, v in a.items() if k not in OF_THE_RUN} == {
                k: v for k, v in b.items() if k not in OF_THE_RUN
            }
        elif name.endswith(".npy"):
            assert np.array_equal(np.load(one / name), np.load(other / name))
    return names


ALL_KINDS = ("--seed", "1", "2", "--grid", "--metadata")


@pytest.mark.parametrize(
    "ranks", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_pictures_are_those_of_one_process(alone, few_tokens, tmp_path, ranks):
    file = prompts(tmp_path, 3)
    line = ["generate", "--prompt-file", file, *ALL_KINDS, "-m", few_tokens,
            "--save-latents", "z.npy"]  # fmt: skip
    (tmp_path / "one").mkdir(), (tmp_path / "many").mkdir()
    printed = alone(*line, "-o", "a.png", cwd=tmp_path / "one")
    ends = on_ranks(ranks, *COMMAND, *line, "-o", "a.png", cwd=tmp_path / "many")
    assert ends[0].out == printed and len(printed.split()) == 6 + 1 + 6
    assert not any(end.out or end.err for end in ends[1:])
    assert len(same_pictures(tmp_path / "one", tmp_path / "many")) == 6 + 6 + 6 + 1


def kill_when(ranks: Ranks, folder: Path, files: int, rank: int, sign=signal.SIGKILL) -> None:
    """Send a signal to a rank once the folder has so many pictures."""
    until = time.monotonic() + 60
    while len(list(folder.glob("*.png"))) < files:
        assert time.monotonic() < until, "no pictures"
        assert ranks.processes[0].poll() is None, ranks.processes[0].stderr.read()
        time.sleep(0.01)
    os.kill(ranks.processes[rank].pid, sign)


def ended_well(ends, killed: int, folder: Path, status: int = -signal.SIGKILL) -> None:
    """All ranks have ended, one of them tells which was killed, and every picture is whole."""
    assert [e.status for e in ends] == [
        status if rank == killed else 1 for rank in range(len(ends))
    ], ends
    teller = ends[1 if killed == 0 else 0]
    sentences = [line for e in ends for line in e.err.splitlines() if "Rank" in line]
    assert len(sentences) == 1 and sentences[0] in teller.err
    assert re.fullmatch(rf"mlx-starflow: Rank {killed} \(.*\.", sentences[0])
    for path in folder.glob("*.png"):
        Image.open(path).load()


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_all_and_resume_completes_the_job(alone, colours, tmp_path, killed):
    count = 20
    line = ["generate", "--prompt-file", prompts(tmp_path, count), "--seed", "5", "-m", colours]
    folder = tmp_path / "many"
    ranks = Ranks(2, *COMMAND, *line, "-o", folder / "a.png")
    kill_when(ranks, folder, 3, killed)
    began = time.monotonic()
    ended_well(ranks.wait(), killed, folder)
    assert time.monotonic() - began < 30
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.png")}
    assert 3 <= len(before) < count
    if killed == 1:  # what is left on the disk does not depend on which rank it was
        return
    alone(*line, "-o", folder / "a.png", "--resume", cwd=tmp_path)
    assert {n: (folder / n).stat().st_mtime_ns for n in before} == before  # not drawn again
    assert {p.name for p in folder.iterdir()} == {
        f"a_prompt_{i + 1}_seed_5.png" for i in range(count)
    }


@pytest.mark.slow
def test_twenty_kills_of_a_random_rank(alone, colours, tmp_path):
    line = ["generate", "--prompt-file", prompts(tmp_path, 40), "--seed", "5", "-m", colours]
    whole, chance = tmp_path / "whole", random.Random(17)
    alone(*line, "-o", whole / "a.png", cwd=tmp_path)
    for turn in range(20):
        folder, size = tmp_path / f"many{turn}", chance.choice((2, 3))
        killed = chance.randrange(size)
        ranks = Ranks(size, *COMMAND, *line, "-o", folder / "a.png")
        kill_when(ranks, folder, chance.randrange(1, 36), killed)
        began = time.monotonic()
        ends = ranks.wait()
        if any(end.status == 0 for end in ends):  # the last picture was kept just before
            assert len(list(folder.iterdir())) == 40
        else:
            ended_well(ends, killed, folder)
        assert time.monotonic() - began < 30
        on_ranks(size, *COMMAND, *line, "-o", folder / "a.png", "--resume")
        assert len(same_pictures(whole, folder)) == 40


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_of_a_divided_model_ends_the_other(colours, tmp_path, killed):
    folder = tmp_path / "many"
    line = ["generate", "--prompt-file", prompts(tmp_path, 60), "--seed", "5", "-m", colours]
    ranks = Ranks(2, *COMMAND, *line, "--split", "guidance", "-o", folder / "a.png")
    kill_when(ranks, folder, 2, killed)
    began = time.monotonic()
    ended_well(ranks.wait(), killed, folder)
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.parametrize("split", ["tensor", "guidance"])
def test_a_divided_pipeline_draws_the_pictures_of_one_process(alone, converted, tmp_path, split):
    """With T5, flow and autoencoder of the reference model."""
    line = ["generate", "a fox", "--seed", "1", "-m", converted, "--sampler", "sequential",
            "-o", "a.png", "--save-latents", "z.safetensors"]  # fmt: skip
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    alone(*line, cwd=tmp_path / "one")
    on_ranks(2, *COMMAND, *line, "--split", split, cwd=tmp_path / "two")
    one, two = (mx.load(str(tmp_path / n / "z.safetensors")) for n in ("one", "two"))
    for name, array in one.items():
        apart = mx.abs(array - two[name]).max() / mx.maximum(1, mx.abs(array).max())
        assert apart.item() < 1e-5, name
    if split == "tensor":
        line = ["score", tmp_path / "one" / "a.png", "-m", converted, "--prompt", "a fox", "--json"]
        wanted = json.loads(alone(*line, cwd=tmp_path))["images"][0]
        (first, _) = on_ranks(2, *COMMAND, *line, "--split", split)
        found = json.loads(first.out)["images"][0]
        assert found["log_p_null"] == pytest.approx(wanted["log_p_null"], rel=1e-5)


OTHER_VERSION = """
import os, sys
import mlx_starflow.version
if os.environ["MLX_RANK"] == "1":
    mlx_starflow.version.__version__ = "9.9"
sys.argv[0] = "mlx-starflow"
from mlx_starflow.cli.app import main
main()
"""


@pytest.mark.parametrize(
    "what",
    [
        "settings",
        *(pytest.param(w, marks=pytest.mark.slow) for w in ("version", "model", "adapter")),
    ],
)
def test_a_rank_that_disagrees_ends_all(colours, wide, tmp_path, what):
    line = ["generate", "red", "--seed", "5", "-o", tmp_path / "a.png", "-m"]
    first = last = [*COMMAND, *line, colours]
    says = {"settings": "another settings", "version": "another version of mlx-starflow: 9.9",
            "model": "another model", "adapter": "another adapters"}[what]  # fmt: skip
    if what == "settings":
        last = [*first, "--guidance", "3"]
    elif what == "model":
        last = [*COMMAND, *line, wide]
    elif what == "adapter":
        last = [*first, "--lora", adapter(colours, tmp_path / "adapter")]
    else:
        first = last = ["-c", OTHER_VERSION, *line, colours]
    ends = Ranks(2, each=[first, last]).wait()
    assert [end.status for end in ends] == [1, 1]
    assert ends[0].err.startswith("mlx-starflow: Rank 1 (") and says in ends[0].err
    assert not ends[1].err and not list(tmp_path.glob("*.png"))


def test_an_error_of_all_ranks_is_told_once(colours, tmp_path):
    line = ["generate", "red", "-m", colours, "--aspect-ratio", "7:1", "-o", tmp_path / "a.png"]
    ends = Ranks(2, *COMMAND, *line).wait()
    assert ends[0].status == 2 and ends[0].err.count("\n") == 1 and "7:1" in ends[0].err
    assert ends[1].status in (1, 2) and not ends[1].err


@pytest.mark.slow
def test_the_launcher_has_the_exit_status_and_ctrl_c_ends_all(colours, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, *COMMAND, "generate", "--ranks", "2", "--seed", "1", "-m", str(colours)]
    folder = tmp_path / "many"

    def start(*more):
        return subprocess.Popen(
            [*line, *map(str, more)], cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    good = start("red", "-o", tmp_path / "good.png")
    assert good.communicate(timeout=60) == (f"{tmp_path}/good.png\n", "") and good.returncode == 0
    bad = start("--prompt-file", "none.txt")
    out, err = bad.communicate(timeout=60)
    assert bad.returncode == 2 and not out
    assert err == "mlx-starflow: --prompt-file none.txt: there is no such file.\n"
    long = start("--prompt-file", prompts(tmp_path, 500), "-o", folder / "a.png")
    while len(list(folder.glob("*.png"))) < 2:
        time.sleep(0.02)
    long.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = long.communicate(timeout=60)
    assert time.monotonic() - began < 30 and long.returncode == 130, err
    found = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, check=False)
    assert not found.stdout
    assert not list(folder.glob(".*.part"))


def test_resume_refuses_what_is_of_another_job(run, few_tokens, tmp_path):  # noqa: F811
    line = ["generate", "--prompt-file", prompts(tmp_path, 2), "-m", few_tokens, "-o", "a.png"]
    assert run(*line, "--seed", "5").status == 0
    for more, says in (
        (["--seed", "5", "--guidance", "3"], "guidance"),
        ([], "--resume needs --seed"),
        (["--seed", "5", "--grid"], "--grid"),
    ):
        done = run(*line, *more, "--resume")
        assert done.status == 2 and says in done.err, done.err
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_scores_are_those_of_one_process(alone, colours, tmp_path):
    folder = pictures(tmp_path / "pictures", 20, captions=False)
    line = ["score", folder, "-m", colours, "--prompt", "red", "--json", "--draws", "1"]
    assert on_ranks(2, *COMMAND, *line)[0].out == alone(*line, cwd=tmp_path)


def difference(one: Path, other: Path) -> float:
    a, b = (mx.load(str(p / "training_state.safetensors")) for p in (one, other))
    assert set(a) == set(b)
    return max(
        (mx.abs(a[k].astype(mx.float32) - b[k].astype(mx.float32)).max()
         / mx.maximum(1.0, mx.abs(a[k]).max())).item() for k in a
    )  # fmt: skip


def test_training_is_that_of_one_process_with_twice_the_batch(alone, colours, tmp_path):
    data = pictures(tmp_path / "pictures", 10)
    line = ["train", "--data", data, "-m", colours, "--seed", "3", "--previews", "0",
            "--steps-per-eval", "2", "--caption-dropout", "0.3"]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    alone(*line, "--iters", "4", "--batch-size", "4", "--adapter-path", one, cwd=tmp_path)
    on_ranks(2, *COMMAND, *line, "--iters", "4", "--batch-size", "2", "--adapter-path", two)
    assert difference(one, two) < 1e-5
    assert json.loads((two / "adapter_config.json").read_text())


def test_the_place_of_a_rank(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text('[["10.0.0.1:5001"], ["10.0.0.2:5002", "10.0.1.2:5003"]]')
    place = place_of({"MLX_RANK": "1", "MLX_HOSTFILE": str(hosts)})
    assert place is not None and (place.rank, place.size) == (1, 2)
    assert (place.host, place.port) == ("10.0.0.1", 5000)
    hosts.write_text("\n")
    assert place_of({"MLX_RANK": "0", "MLX_HOSTFILE": str(hosts)}) is None  # mlx.launch -n 1
    assert place_of({}) is None
    for wrong in ({"MLX_RANK": "9", "MLX_WORLD_SIZE": "2", "NCCL_HOST_IP": "a", "NCCL_PORT": "1"},
                  {"PMI_SIZE": "2"}):  # fmt: skip
        with pytest.raises(UsageError):
            place_of(wrong)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "expected a list of hosts"),
        ('[{"ips": ["1.2.3.4"]}]', 'host 1 has no "ssh"'),
        ('[{"ssh": "a", "ips": "1.2.3.4"}]', 'host 1 has no "ips"'),
        ('[{"ssh": "a", "ips": []}]', "the first host needs an address"),
        ("nonsense", "is not valid JSON"),
    ],
)
def test_a_wrong_hostfile_is_named(tmp_path, text, says):
    file = tmp_path / "hosts.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=re.escape(says)):
        hosts_in(file)
    with pytest.raises(UsageError, match="there is no such file"):
        hosts_in(tmp_path / "none.json")
