"""The routes of AUTOMATIC1111, as SillyTavern, Open WebUI and Draw Things ask them."""

from __future__ import annotations

import json

import pytest
from serving import picture, running, serving

import mlx_starflow as sf


@pytest.fixture(scope="module")
def server(colours, tmp_path_factory):
    with serving(colours, tmp_path_factory.mktemp("pictures")) as server:
        yield server


def test_sillytaverns_probe(server):
    """Ping, lists, the model and setting it, in the order of its settings page."""
    assert server.get("/sdapi/v1/options").status_code == 200
    assert [m["title"] for m in server.get("/sdapi/v1/sd-models").json()] == ["colours"]
    assert "sequential" in [s["name"] for s in server.get("/sdapi/v1/samplers").json()]
    for name in ("upscalers", "latent-upscale-modes", "sd-vae", "schedulers"):
        assert server.get(f"/sdapi/v1/{name}").json() == []
    assert server.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "colours"
    assert server.post("/sdapi/v1/options", {"sd_model_checkpoint": "x"}).status_code == 200
    progress = server.get("/sdapi/v1/progress").json()
    assert progress["progress"] == 0.0 and progress["state"]["job_count"] == 0


SILLYTAVERN = {
    "url": "http://localhost:8080", "auth": "", "prompt": "red",
    "negative_prompt": "lowres, bad anatomy, bad hands", "sampler_name": "auto",
    "scheduler": "normal", "steps": 20, "cfg_scale": 7, "width": 512, "height": 768, "seed": -1,
    "override_settings": {"CLIP_stop_at_last_layers": 1}, "override_settings_restore_afterwards":
    True, "clip_skip": 1, "save_images": True, "send_images": True, "do_not_save_grid": False,
    "restore_faces": False, "enable_hr": False, "hr_upscaler": "None", "denoising_strength": 0.7,
}  # fmt: skip


def test_sillytavern_draws(server):
    answer = server.post("/sdapi/v1/txt2img", SILLYTAVERN)
    assert answer.status_code == 200, answer.text
    data = answer.json()
    assert picture(data["images"][0]).size == (512, 768)
    info = json.loads(data["info"])
    assert info["all_seeds"] == [info["seed"]] and 0 <= info["seed"] < 2**32
    assert "Seed: " in info["infotexts"][0] and info["infotexts"][0].startswith("red\n")
    assert (info["width"], info["height"]) == (512, 768)


def test_a_batch_with_seeds(server):
    """Open WebUI's body for its default engine, with a seed added."""
    body = {"prompt": "green", "batch_size": 2, "width": 64, "height": 64, "seed": 5,
            "negative_prompt": "x"}  # fmt: skip
    data = server.post("/sdapi/v1/txt2img", body).json()
    assert len(data["images"]) == 2
    assert json.loads(data["info"])["all_seeds"] == [5, 6]


def test_the_key_may_come_as_password(colours, tmp_path):
    with sf.load(colours) as pipe, running(pipe, tmp_path, api_key="secret") as server:
        assert server.get("/sdapi/v1/options").status_code == 401
        assert server.get("/sdapi/v1/options", auth=("user", "secret")).status_code == 200
        assert server.get("/sdapi/v1/options", auth=("user", "wrong")).status_code == 401
