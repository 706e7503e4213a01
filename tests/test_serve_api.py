"""The server's own API: events, queue, gallery, edit, vary, interpolate, score, encode."""

from __future__ import annotations

import base64
import json
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image
from serving import errors_as_documented, picture, png, running, serving
from starlette.routing import Route

import mlx_starflow as sf
from mlx_starflow.editing.inputs import latents_of
from mlx_starflow.exact.scoring import ScoreOptions, score_pictures
from mlx_starflow.server.app import all_routes


@pytest.fixture(scope="module")
def server(colours, tmp_path_factory):
    with serving(colours, tmp_path_factory.mktemp("pictures")) as server:
        yield server


@pytest.fixture(scope="module")
def drawn(server) -> dict:
    """A picture in the gallery."""
    answer = server.post("/api/generate", {"prompt": "red", "seed": 7, "stream": False})
    return answer.json()["pictures"][0]


def opened(server, row: dict) -> Image.Image:
    return picture(server.get(row["url"]).content)


def test_a_small_answer_is_sent_at_once(server):
    """On a connection that stays open; TCP would keep back the end of an answer for 40 ms."""

    def seconds() -> float:
        began = time.perf_counter()
        assert server.get("/health").status_code == 200
        return time.perf_counter() - began

    assert sorted(seconds() for _ in range(40))[20] < 0.03


def test_capabilities_are_those_of_the_model_and_the_server(server):
    told = server.get("/api/capabilities").json()
    own = server.studio.pipe.capabilities()
    assert {k: told[k] for k in own if k != "model"} == {k: own[k] for k in own if k != "model"}
    assert told["model"]["name"] == "colours" and "/" not in json.dumps(told["model"])
    assert told["server"]["max_queue"] == 64


def test_drawing_is_told_as_it_goes_on(server, monkeypatch):
    # Both pass progress over that follows the last too soon: on a fast machine, all of it.
    monkeypatch.setattr("mlx_starflow.pipeline.EVENTS_PER_SECOND", 1e9)
    monkeypatch.setattr("mlx_starflow.server.scheduler.PROGRESS_SECONDS", 0.0)
    events = [data for _, data in server.events("/api/generate", {"prompt": "blue", "n": 2})]
    kinds = [data["event"] for data in events]
    assert kinds[0] == "queued" and events[0]["position"] == 1
    assert kinds[1] == "started" and kinds[-1] == "finished"
    assert {"text_encoded", "block_progress", "block_done", "decoded"} <= set(kinds)
    assert kinds.count("preview") == 6 and kinds.count("picture") == 2
    shares = [data["share"] for data in events if "share" in data]
    assert shares == sorted(shares) and 0 <= shares[0] <= shares[-1] <= 1
    for data in events:
        if data["event"] == "preview":
            assert picture(data["b64_json"]).size == (12, 12) and data["picture"] in (0, 1)
    assert {row["picture"] for row in events[-1]["pictures"]} == {0, 1}
    job = server.get(f"/api/jobs/{events[0]['job']}").json()
    assert job["state"] == "done" and job["kind"] == "generate"


def test_the_best_of_several_is_the_one_that_fits_its_prompt_best(server):
    wish = {"prompt": "green", "seed": 1, "best_of": 4, "stream": False}
    (best,) = server.post("/api/generate", wish).json()["pictures"]
    record = best["settings"]["best_of"]
    assert record["seeds"] == [1, 2, 3, 4]
    assert best["log_prob_gain"] == max(record["scores"])
    assert best["seed"] == record["seeds"][int(np.argmax(record["scores"]))]


def test_a_job_can_be_cancelled_by_its_name(server):
    gate = threading.Event()
    blocked = threading.Thread(target=lambda: server.studio.pipe.run(lambda: gate.wait(30)))
    blocked.start()
    events = server.events("/api/generate", {"prompt": "red", "n": 4})
    job = next(events)[1]["job"]
    assert server.client.delete(f"/api/jobs/{job}").status_code == 200
    gate.set()
    rest = list(events)
    assert rest[-1][1]["error"]["code"] == "cancelled"
    blocked.join()
    assert server.get(f"/api/jobs/{job}").json()["state"] == "cancelled"
    assert errors_as_documented(server.get("/api/jobs/none"))["code"] == "not_found"


def test_those_who_wait_are_told_their_place_and_the_time_left(server):
    server.post("/api/generate", {"prompt": "red", "stream": False})
    gate = threading.Event()
    blocked = threading.Thread(target=lambda: server.studio.pipe.run(lambda: gate.wait(30)))
    blocked.start()
    first = server.events("/api/generate", {"prompt": "red", "n": 3})
    next(first)
    second = server.events("/api/generate", {"prompt": "red", "guidance": 0.5})
    queued = next(second)[1]
    assert queued["event"] == "queued" and queued["position"] >= 1
    assert server.get("/api/queue").json()["waiting"] >= 1
    gate.set()
    assert list(first)[-1][0] == "finished" and list(second)[-1][0] == "finished"
    blocked.join()


def test_the_gallery_is_the_folder(server, drawn):
    folder = server.studio.gallery.folder
    (folder / "notes.txt").write_text("not a picture")
    (folder / "link.png").symlink_to(folder / drawn["name"])
    (folder / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (4, 4)).save(folder / "plain.png")
    os.utime(folder / "plain.png", (1_600_000_000,) * 2)
    listed = server.get("/api/gallery?limit=200").json()["pictures"]
    names = [row["name"] for row in listed]
    assert drawn["name"] in names and names[-1] == "plain.png"
    assert "notes.txt" not in names and "link.png" not in names
    rows = {row["name"]: row for row in listed}
    assert rows["plain.png"]["settings"] is None and rows["broken.png"]["settings"] is None
    assert rows[drawn["name"]]["settings"]["seed"] == 7
    pages, before = [], ""
    while before is not None:
        page = server.get(f"/api/gallery?limit=2{before}").json()
        pages += [row["name"] for row in page["pictures"]]
        before = page["before"] and f"&before={page['before']}"
    assert pages == names
    assert server.client.delete("/api/gallery/plain.png").json() == {"deleted": "plain.png"}
    assert not (folder / "plain.png").exists()
    assert server.client.delete("/api/gallery/link.png").status_code == 404
    assert server.client.delete("/api/gallery/plain.png").status_code == 404
    (folder / "link.png").unlink()
    (folder / "broken.png").unlink()


def test_the_same_settings_draw_the_same_picture(server, drawn):
    settings = server.get(f"/api/gallery/{drawn['name']}").json()["settings"]
    names = ("prompt", "seed", "guidance", "sampler", "aspect_ratio")
    wish = {name: settings[name] for name in names} | {"stream": False}
    (again,) = server.post("/api/generate", wish).json()["pictures"]
    one, two = (np.asarray(opened(server, row), int) for row in (drawn, again))
    assert np.abs(one - two).max() <= 1


def test_settings_are_read_from_a_file(server, drawn):
    content = server.get(drawn["url"]).content
    told = server.post("/api/settings", files={"image": ("x.png", content)}).json()["settings"]
    assert told["prompt"] == "red" and told["seed"] == 7 and "blocks" not in told
    plain = png(Image.new("RGB", (4, 4)))
    assert server.post("/api/settings", files={"image": plain}).json() == {"settings": None}


def test_score_is_that_of_the_library(server, drawn):
    form = {"picture": drawn["name"], "prompt": ["red", "blue"], "draws": "3"}
    told = server.post("/api/score", data=form).json()
    pipe = server.studio.pipe
    x = latents_of(pipe, [opened(server, drawn)])
    score = score_pictures(
        pipe.flow, x, pipe.encode_prompts(["red", "blue", ""]), ScoreOptions(draws=3)
    )[0]
    rows = {row["prompt"]: row for row in told["prompts"]}
    assert rows["red"]["log_p"] == pytest.approx(float(score.mean[0]), rel=1e-5)
    assert rows["blue"]["posterior"] == pytest.approx(float(score.posterior(2)[1]), abs=1e-4)
    values = np.array(told["map"]["values"])
    assert values.shape == (6, 6)
    best = 0 if rows["red"]["log_p"] >= rows["blue"]["log_p"] else 1
    assert values.mean() == pytest.approx(float(score.bits_per_dim[best]), abs=1e-3)
    assert picture(told["map"]["b64_json"]).width > 12


def test_what_is_encoded_can_be_decoded(server, drawn):
    told = server.post("/api/encode", data={"picture": drawn["name"], "prompt": "red"}).json()
    record = told["noise"]
    noise = np.frombuffer(base64.b64decode(record["data"]), "<f4").reshape(record["shape"])
    result = server.studio.pipe.generate("red", guidance=0, noise=noise, seed=0, denoise=False)
    given = np.asarray(opened(server, drawn), int)
    assert np.abs(np.asarray(result.images[0], int) - given).max() <= 1
    assert told["dimensions"] == noise.size


def test_vary_keeps_only_what_it_is_told_to(server, drawn):
    before = len(server.get("/api/gallery?limit=200").json()["pictures"])
    form = {"picture": drawn["name"], "prompt": "red", "strength": "0", "seed": "3"}
    shown = server.post("/api/vary", data=form | {"keep": "false"}).json()["pictures"][0]
    assert len(server.get("/api/gallery?limit=200").json()["pictures"]) == before
    kept = server.post("/api/vary", data=form | {"n": "2"}).json()["pictures"]
    assert len(kept) == 2 and kept[0]["settings"]["varied"] == {"strength": 0.0}
    one, two = (np.asarray(i, int) for i in (picture(shown["b64_json"]), opened(server, kept[0])))
    assert np.abs(one - two).max() <= 1


def test_interpolate_begins_and_ends_with_the_pictures(server, drawn):
    wish = {"prompt": "blue", "seed": 9, "stream": False}
    (other,) = server.post("/api/generate", wish).json()["pictures"]
    form = {"picture": drawn["name"], "picture2": other["name"], "prompt": "red", "prompt2": "blue"}
    told = server.post("/api/interpolate", data=form | {"frames": "5"}).json()
    frames = [np.asarray(picture(f), int) for f in told["frames"]]
    assert len(frames) == 5
    for frame, row in ((frames[0], drawn), (frames[-1], other)):
        assert np.abs(frame - np.asarray(opened(server, row), int)).max() <= 1
    seeds = {"seed": 1, "seed2": 2, "prompt": "red", "frames": 3}
    assert len(server.post("/api/interpolate", seeds).json()["frames"]) == 3


def test_edit_tells_progress_and_chooses_the_best(server, drawn):
    mask = Image.new("L", (12, 12))
    mask.paste(255, (0, 0, 6, 12))
    form = {"picture": drawn["name"], "prompt": "blue", "best_of": "3", "stream": "true"}
    events = list(server.events("/api/edit", data=form, files={"mask": ("m.png", png(mask))}))
    assert any(name == "progress" and 0 < data["share"] < 1 for name, data in events)
    (row,) = events[-1][1]["pictures"]
    scores = row["settings"]["best_of"]["scores"]
    assert row["settings"]["log_p"] == max(scores) and len(scores) == 3
    one, two = (np.asarray(opened(server, r), int) for r in (drawn, row))
    assert (one[:, 6:] == two[:, 6:]).all() and (one[:, :6] != two[:, :6]).any()


def test_the_description_names_every_route(server):
    told = server.get("/openapi.json").json()
    routes = {
        (route.path.replace(":path", ""), method)
        for route in all_routes(server.studio)
        if isinstance(route, Route)
        for method in route.methods - {"HEAD"}
    }
    hidden = {("/page/{name}", "GET"), ("/favicon.ico", "GET")}
    assert {
        (path, method.upper()) for path, ops in told["paths"].items() for method in ops
    } == routes - hidden
    assert told["openapi"].startswith("3.")


def test_every_file_of_the_page_is_served_and_says_what_it_may_do(server):
    page = server.get("/")
    assert "text/html" in page.headers["content-type"]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    for name in ("script", "form", "gallery", "map", "mask", "server", "tools"):
        answer = server.get(f"/page/{name}.js")
        assert "javascript" in answer.headers["content-type"]
        assert "http://" not in answer.text and "https://" not in answer.text
    assert server.get("/page/style.css").status_code == 200
    assert server.get("/page/options.py").status_code == 404


def test_models_without_text_can_be_served(unconditional, classes, tmp_path):
    for model, prompt in ((unconditional, ""), (classes, "3")):
        with sf.load(model) as pipe, running(pipe, tmp_path) as server:
            answer = server.post("/v1/images/generations", {"prompt": prompt, "seed": 1})
            assert answer.status_code == 200, answer.text
            assert answer.json()["data"][0]["settings"]["prompt"] == prompt
            name = server.get("/api/gallery").json()["pictures"][0]["name"]
            assert server.post("/api/score", {"picture": name, "prompt": [prompt]}).json()[
                "prompts"
            ]
            assert server.post("/api/vary", {"picture": name, "prompt": prompt}).status_code == 200
