"""Known models come from a hub: the real client against one on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import case_dir, case_info
from hub_server import Hub

from convert.from_hub import convert_sources
from mlx_starflow.bundle_check import problem_in_bundle
from mlx_starflow.config import TextConfig
from mlx_starflow.hub import Sources
from mlx_starflow.models import KNOWN, known_model
from mlx_starflow.text import load_encoder

ROOT = Path(__file__).parents[1]
CHECKPOINT = "starflow_3B_t2i_256x256.pth"
LICENCE = b"research only\n"

# What a program does that asks for a model, as one JSON line of what it was told and got.
CLIENT = """
import json, sys
from mlx_starflow import resumable
resumable.WAITS = (0.05, 0.1)
from mlx_starflow import hub
from mlx_starflow.download import DownloadPlan, DownloadProgress, RemoteFile, fetch
from mlx_starflow.errors import StarflowError

told = {"plan": [], "bytes": 0, "licence": "", "done": [], "converting": []}

def tell(event):
    if isinstance(event, DownloadPlan):
        told["plan"] += [f.name for f in event.files]
        told["bytes"] += event.bytes
        told["licence"] = event.licence
    elif isinstance(event, DownloadProgress):
        told["done"].append([event.file.name, event.done, event.total])
    else:
        told["converting"].append(event.model)

try:
    what, name, *rest = sys.argv[1:]
    if what == "fetch":
        path = fetch(RemoteFile(name, rest[0], 0), tell)
    elif what == "component":
        path = hub.download_component(name, rest[0], tell)
    elif what == "reference":
        from convert.from_hub import convert_component
        from mlx_starflow.config import TextConfig
        text = TextConfig("t5", 12, 32)
        convert = lambda source, kind, target: convert_component(source, kind, target, text)
        path = hub.resolve_component(None, name, rest[0], convert, tell)
    elif what == "look":
        path = hub.resolve(name)
    else:
        quantize = int(rest[0]) if rest else None
        def convert(sources, output):
            from convert.from_hub import convert_sources
            convert_sources(sources, output)
        path = hub.resolve(name, convert, quantize, tell)
    print(json.dumps(told | {"path": str(path)}))
except StarflowError as error:
    print(json.dumps(told | {"error": str(error), "kind": type(error).__name__}))
"""


def files_of(case: str, *patterns: str) -> dict[str, bytes]:
    found = [p for pattern in patterns for p in case_dir(case).glob(pattern)]
    return {p.name: p.read_bytes() for p in sorted(found)}


def repositories() -> dict[str, dict[str, bytes]]:
    """The small fixtures under the published names, beside files that nobody asked for."""
    checkpoint = (case_dir("t2i_tiny") / "checkpoint.pth").read_bytes()
    return {
        "apple/starflow": {CHECKPOINT: checkpoint, "LICENSE": LICENCE, "other.pth": b"0" * 99},
        "google/flan-t5-xl": files_of("t5_tiny", "*.safetensors", "*.json") | {"tf.h5": b"0"},
        "stabilityai/sd-vae-ft-ema": files_of("vae_tiny", "*.safetensors", "config.json"),
    }


@pytest.fixture
def hub():
    with Hub(repositories()) as server:
        yield server


@pytest.fixture
def ask(hub, tmp_path):
    """Run the client against the hub, with caches of its own, for at most a minute."""

    def run(*arguments: str, **environment: str) -> dict:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, *arguments],
            env=variables(hub, tmp_path) | environment,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def variables(hub: Hub, folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "MLX_STAR"))}
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "MLX_STARFLOW_CACHE": str(folder / "converted"),
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "*",
    }


def test_download_convert_and_never_ask_again(hub, ask, tmp_path):
    absent = ask("look", "apple/starflow")
    assert absent["kind"] == "ModelNotFoundError" and "models download" in absent["error"]
    assert ask("look", "some/colours")["kind"] == "ModelNotFoundError" and hub.requests == []
    first = ask("resolve", "apple/starflow")
    assert "error" not in first, first["error"]
    # Told before downloading: every file that is needed, how large, and on what terms.
    needed = {CHECKPOINT, "LICENSE", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert needed <= set(first["plan"])
    assert not {"other.pth", "tf.h5"} & set(first["plan"])
    sizes = {n: len(d) for files in hub.repositories.values() for n, d in files.items()}
    assert first["bytes"] >= sizes[CHECKPOINT] + sizes["diffusion_pytorch_model.safetensors"]
    assert "research only" in first["licence"] and "License Agreement" in first["licence"]
    assert [CHECKPOINT, sizes[CHECKPOINT], sizes[CHECKPOINT]] in first["done"]
    assert first["converting"] == ["apple/starflow"]

    bundle = Path(first["path"])
    assert bundle.parent == tmp_path / "converted"
    assert problem_in_bundle(bundle) is None
    assert (bundle / "LICENSE").read_bytes() == LICENCE
    config = json.loads((bundle / "config.json").read_text())
    assert config["name"] == "apple/starflow" and "converted" in config["attribution"]
    assert (
        config["text"]["length"] == 12
        and config["image_size"] == 64
        and config["defaults"]["guidance"] > 0
    )
    features = load_encoder(bundle / "text_encoder", TextConfig.from_dict(config["text"])).encode(
        ["a fox"]
    )
    assert features.features.shape == (1, 12, 32)

    hub.requests.clear()
    assert ask("look", "apple/starflow")["path"] == first["path"]
    again = ask("resolve", "starflow")  # an alias of the same model
    assert again["path"] == first["path"] and again["plan"] == []
    assert hub.requests == []
    assert ask("resolve", "apple/starflow", HF_HUB_OFFLINE="1")["path"] == first["path"]

    # Another precision needs a conversion and no download.
    smaller = ask("resolve", "apple/starflow", "8", HF_HUB_OFFLINE="1")
    assert smaller["path"].endswith("@8-bit") and smaller["converting"] == ["apple/starflow"]
    assert problem_in_bundle(Path(smaller["path"])) is None
    # Without the published files the unquantized copy will do: it is quantized while loading.
    for path in (tmp_path / "hf").rglob("diffusion_pytorch_model.safetensors"):
        path.unlink()
    assert ask("resolve", "apple/starflow", "4")["path"] == first["path"]
    assert hub.requests == []
    # A copy that is not complete is named, not used.
    (bundle / "flow" / "model.safetensors").write_bytes(b"0" * 100)
    broken = ask("resolve", "apple/starflow")
    assert "not complete" in broken["error"] and "models remove" in broken["error"]


def test_a_broken_download_is_continued_where_it_broke(hub, ask):
    hub.repositories["some/model"] = {"big.bin": bytes(24 << 20)}
    hub.breaks["big.bin"] = [15 << 20]
    done = ask("fetch", "some/model", "big.bin")
    assert Path(done["path"]).stat().st_size == 24 << 20
    assert starts(hub) == [0, 15 << 20]


def test_a_killed_download_is_continued(hub, ask, tmp_path):
    hub.repositories["some/model"] = {"big.bin": bytes(24 << 20)}
    hub.stalls["big.bin"] = 15 << 20
    command = [sys.executable, "-c", CLIENT, "fetch", "some/model", "big.bin"]
    process = subprocess.Popen(command, env=variables(hub, tmp_path), cwd=ROOT)
    try:
        wait_for(lambda: any(p.stat().st_size == 15 << 20 for p in partial_files(tmp_path)))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    hub.stalls.clear()
    hub.requests.clear()
    done = ask("fetch", "some/model", "big.bin")
    assert Path(done["path"]).stat().st_size == 24 << 20
    assert starts(hub) == [15 << 20]


def starts(hub: Hub) -> list[int]:
    """The bytes at which files were asked for, in this order."""
    return [r.start for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]


def partial_files(folder: Path) -> list[Path]:
    return list((folder / "hf").rglob("*.resumable"))


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_two_processes_fetch_a_file_once(hub, ask, tmp_path):
    content = os.urandom(9 << 20)
    hub.repositories["some/model"] = {"big.bin": content}
    hub.stalls["big.bin"] = 1 << 20
    command = [sys.executable, "-c", CLIENT, "fetch", "some/model", "big.bin"]
    options = dict(env=variables(hub, tmp_path), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    processes = [subprocess.Popen(command, **options) for _ in range(2)]
    try:
        wait_for(lambda: any(p.stat().st_size for p in partial_files(tmp_path)))
        hub.stalls.clear()  # the first connection breaks, and whoever holds the lock goes on
        told = [json.loads(p.communicate(timeout=60)[0]) for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
    assert told[0]["path"] == told[1]["path"]
    assert Path(told[0]["path"]).read_bytes() == content
    assert sorted(starts(hub)) == [0, 1 << 20]


def test_a_damaged_file_is_noticed_and_fetched_anew(hub, ask, tmp_path):
    content = b"x" * (9 << 20)
    hub.repositories["some/model"] = {"big.bin": content}
    hub.stalls["big.bin"] = 1 << 20
    command = [sys.executable, "-c", CLIENT, "fetch", "some/model", "big.bin"]
    process = subprocess.Popen(command, env=variables(hub, tmp_path), cwd=ROOT)
    try:
        wait_for(lambda: any(p.stat().st_size for p in partial_files(tmp_path)))
    finally:
        process.kill()
        process.wait(10)
    hub.stalls.clear()
    (partial,) = partial_files(tmp_path)
    partial.write_bytes(b"y" * partial.stat().st_size)
    damaged = ask("fetch", "some/model", "big.bin")
    assert damaged["kind"] == "HubError" and "SHA-256" in damaged["error"]
    found = ask("fetch", "some/model", "big.bin")
    assert Path(found["path"]).read_bytes() == content


def test_a_hub_that_goes_down_in_between_costs_only_the_rest(hub, ask):
    # 501, since the client itself tries for long where 503 promises that waiting helps.
    hub.refusals["google/flan-t5-xl"] = (501, "")
    down = ask("resolve", "apple/starflow")
    assert down["kind"] == "HubError" and "HTTP 501" in down["error"]
    assert "google/flan-t5-xl" in down["error"]
    hub.refusals.clear()
    hub.refusals["model-00004-of-00005.safetensors"] = (501, "")
    partly = ask("resolve", "apple/starflow")
    assert partly["kind"] == "HubError" and "model-00004-of-00005" in partly["error"]
    hub.refusals.clear()
    hub.requests.clear()
    rest = ask("resolve", "apple/starflow")
    assert problem_in_bundle(Path(rest["path"])) is None
    assert CHECKPOINT not in rest["plan"] and "model-00001-of-00005.safetensors" not in rest["plan"]
    assert not any(CHECKPOINT in r.path for r in hub.requests)


def test_offline_without_a_complete_copy(hub, ask):
    found = ask("resolve", "apple/starflow", HF_HUB_OFFLINE="1")
    assert found["kind"] == "HubError"
    assert "HF_HUB_OFFLINE" in found["error"] and "apple/starflow" in found["error"]
    assert hub.requests == []


def test_nobody_answers(ask):
    found = ask("resolve", "apple/starflow", HF_ENDPOINT="http://127.0.0.1:9")
    assert found["kind"] == "HubError"
    assert "127.0.0.1:9 could not be reached" in found["error"]


def test_gated_and_the_token(hub, ask):
    hub.token = "hf_right"
    found = ask("resolve", "apple/starflow")
    assert found["kind"] == "HubError"
    assert "gated (HTTP 401)" in found["error"] and "HF_TOKEN" in found["error"]
    assert hub.requests and all(r.token is None for r in hub.requests)
    found = ask("component", "stabilityai/sd-vae-ft-ema", "vae", HF_TOKEN="hf_wrong")
    assert "gated" in found["error"] and hub.requests[-1].token == "hf_wrong"
    found = ask("component", "stabilityai/sd-vae-ft-ema", "vae", HF_TOKEN="hf_right")
    assert (Path(found["path"]) / "config.json").is_file()


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((403, "GatedRepo"), "is gated (HTTP 403): accept its terms"),
        ((403, ""), "refused access without a token"),
        ((401, "RepoNotFound"), "no repository apple/starflow (HTTP 401)"),
        ((404, "RepoNotFound"), "no repository apple/starflow (HTTP 404)"),
        ((500, ""), "failed for apple/starflow (HTTP 500)"),
    ],
)
def test_every_refusal_has_its_own_words(hub, ask, refusal, said):
    hub.refusals["apple/starflow"] = refusal
    found = ask("resolve", "apple/starflow")
    assert found["kind"] == "HubError" and said in found["error"], found["error"]
    assert f"{hub.url}/apple/starflow" in found["error"] or refusal[0] == 500


def test_a_checkpoint_that_was_renamed(hub, ask):
    files = hub.repositories["apple/starflow"]
    files["new_name.pth"] = files.pop(CHECKPOINT)
    found = ask("resolve", "apple/starflow")
    assert f"no file {CHECKPOINT}" in found["error"] and "new_name.pth" in found["error"]


def test_a_shard_that_is_missing(hub, ask):
    shard = "model-00003-of-00005.safetensors"
    data = hub.repositories["google/flan-t5-xl"].pop(shard)
    found = ask("component", "google/flan-t5-xl", "text_encoder")
    assert found["kind"] == "HubError" and f"names the shard {shard}" in found["error"]
    hub.repositories["google/flan-t5-xl"][shard] = data
    hub.vanished.add(shard)
    found = ask("component", "google/flan-t5-xl", "text_encoder")
    assert f"no file {shard} (HTTP 404)" in found["error"]
    hub.vanished.clear()
    found = ask("component", "google/flan-t5-xl", "text_encoder")
    assert found["plan"] == [shard, *found["plan"][1:]]
    hub.requests.clear()
    assert ask("component", "google/flan-t5-xl", "text_encoder")["path"] == found["path"]
    assert hub.requests == []


def test_a_component_that_is_referred_to(hub, ask):
    for repository, kind in (
        ("stabilityai/sd-vae-ft-ema", "vae"),
        ("google/flan-t5-xl", "text_encoder"),
    ):
        found = ask("reference", f"hub:{repository}", kind)
        assert "error" not in found, found["error"]
        hub.requests.clear()
        again = ask("reference", f"hub:{repository}", kind, HF_HUB_OFFLINE="1")
        assert again["path"] == found["path"] and again["converting"] == []
        assert hub.requests == []
    encoder = load_encoder(Path(again["path"]), TextConfig("t5", 12, 32))
    assert encoder.encode(["a fox"]).features.shape == (1, 12, 32)


def test_a_repository_that_holds_a_bundle(hub, ask, colours):
    files = {str(p.relative_to(colours)): p.read_bytes() for p in colours.rglob("*") if p.is_file()}
    hub.repositories["some/colours"] = {**files, "README.md": b"#", "picture.png": b"0"}
    found = ask("resolve", "some/colours")
    assert problem_in_bundle(Path(found["path"])) is None
    assert "picture.png" not in found["plan"] and "flow/model.safetensors" in found["plan"]
    hub.requests.clear()
    assert ask("resolve", "some/colours")["path"] == found["path"] and hub.requests == []
    found = ask("resolve", "google/flan-t5-xl")
    assert found["kind"] == "ModelNotFoundError" and "no converted model" in found["error"]


def test_names_that_mean_nothing(ask, tmp_path):
    found = ask("resolve", "starflow-9b")
    assert found["kind"] == "ModelNotFoundError"
    assert "apple/starflow" in found["error"] and "default" in found["error"]
    found = ask("resolve", str(tmp_path / "nowhere"))
    assert found["kind"] == "ModelNotFoundError"
    (tmp_path / "model.pth").write_bytes(b"")
    found = ask("resolve", str(tmp_path / "model.pth"))
    assert "is a file" in found["error"] and "convert" in found["error"]
    (tmp_path / "empty").mkdir()
    found = ask("resolve", str(tmp_path / "empty"))
    assert "config.json is missing" in found["error"]


def test_the_converter_takes_repositories_too(hub, tmp_path):
    """--vae and --text-encoder with a repository: the same download, the same cache."""
    source = case_dir("t2i_tiny")
    command = [sys.executable, "-m", "convert.from_torch", str(source / "checkpoint.pth")]
    command += ["--config", str(source / "config.yaml"), "--output", str(tmp_path / "bundle")]
    command += ["--vae", "stabilityai/sd-vae-ft-ema", "--text-encoder", "google/flan-t5-xl"]
    options = dict(cwd=ROOT, env=variables(hub, tmp_path), capture_output=True, text=True)
    done = subprocess.run(command, timeout=60, **options)
    assert done.returncode == 0, done.stderr
    assert problem_in_bundle(tmp_path / "bundle") is None
    assert {"vae", "text_encoder"} <= {p.name for p in (tmp_path / "bundle").iterdir()}
    command[command.index("google/flan-t5-xl")] = "nobody/nothing"
    command[command.index(str(tmp_path / "bundle"))] = str(tmp_path / "other")
    done = subprocess.run(command, timeout=60, **options)
    assert done.returncode == 1 and "no repository nobody/nothing" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "other").exists()


def test_a_published_tarflow_needs_nothing_but_its_name(tmp_path):
    info, source = case_info("tarflow_vp"), case_dir("tarflow_vp") / "checkpoint.pth"
    sizes = (info[k] for k in ("patch_size", "channels", "num_blocks", "layers_per_block"))
    # The published form of a name, with this small model's numbers in it.
    checkpoint = tmp_path / f"afhq_model_{'_'.join(map(str, sizes))}_0.07.pth"
    checkpoint.write_bytes(source.read_bytes())
    (tmp_path / "LICENSE").write_bytes(LICENCE)
    model = known_model("TarFlow-AFHQ-256")
    convert_sources(Sources(model, checkpoint, None, None), tmp_path / "bundle")
    assert problem_in_bundle(tmp_path / "bundle") is None
    assert (tmp_path / "bundle" / "LICENSE").read_bytes() == LICENCE
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert config["model_type"] == "tarflow" and config["name"] == "tarflow-afhq-256"
    assert "Apache" in config["licence"] and "converted to MLX" in config["attribution"]
    flow = json.loads((tmp_path / "bundle" / "flow" / "config.json").read_text())
    assert flow["noise_std"] == 0.07 and flow["in_channels"] == info["in_channels"]


def test_known_models_are_found_by_any_of_their_names():
    names = [name for model in KNOWN for name in (model.name, *model.aliases, model.checkpoint)]
    assert len(names) == len({name.casefold() for name in names})
    for model in KNOWN:
        for name in (model.name, *model.aliases, model.checkpoint, model.name.upper()):
            assert known_model(name) is model
        assert model.licence.endswith(".") and model.checkpoint_bytes > 1e9
    assert known_model("nothing") is None
