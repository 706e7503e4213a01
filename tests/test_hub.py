"""Known models come from a hub: the real client against one on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import case_dir, case_info
from hub_client import CHECKPOINT, LICENCE, ROOT, variables

from convert.from_hub import convert_sources
from mlx_starflow.bundle.check import problem_in_bundle
from mlx_starflow.config import TextConfig
from mlx_starflow.hub.known import KNOWN, known_model
from mlx_starflow.hub.resolve import Sources
from mlx_starflow.text import load_encoder


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
    ask.close()  # another process finds what this one has left on the disk
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


def test_every_refusal_has_its_own_words(hub, ask):
    for refusal, said in (
        ((403, "GatedRepo"), "is gated (HTTP 403): accept its terms"),
        ((403, ""), "refused access without a token"),
        ((401, "RepoNotFound"), "no repository apple/starflow (HTTP 401)"),
        ((404, "RepoNotFound"), "no repository apple/starflow (HTTP 404)"),
        ((500, ""), "failed for apple/starflow (HTTP 500)"),
    ):
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
