"""The images API, asked by the real openai package and with the bodies that other programs send."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest
from PIL import Image
from serving import errors_as_documented, picture, png, running, serving

import mlx_starflow as sf
from mlx_starflow.pictures.metadata import read_metadata


@pytest.fixture(scope="module")
def openai():
    """The package: imported for these tests only, since that takes half a second."""
    return pytest.importorskip("openai", reason="the package openai is not installed")


@pytest.fixture(scope="module")
def server(colours, tmp_path_factory):
    with serving(colours, tmp_path_factory.mktemp("pictures")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server, openai):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)


def pixels(image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), int)


def test_generate(client, server):
    answer = client.images.generate(
        prompt="red", model="colours", n=2, extra_body={"seed": 7, "guidance": 1.0}
    )
    assert len(answer.data) == 2 and answer.created > 1_700_000_000
    for i, one in enumerate(answer.data):
        assert one.url is None
        assert one.seed == 7 + i and isinstance(one.log_prob_gain, float)
        assert one.settings["prompt"] == "red" and one.settings["guidance"] == 1.0
        alone = server.studio.pipe.generate("red", seed=7 + i, guidance=1.0).images[0]
        assert np.abs(pixels(picture(one.b64_json)) - pixels(alone)).max() <= 1


def test_a_picture_is_resized_to_what_was_asked_and_says_so(client, tmp_path):
    answer = client.images.generate(
        prompt="blue", size="1536x1024", output_format="webp", output_compression=50
    )
    image = picture(answer.data[0].b64_json)
    assert image.size == (1536, 1024) and image.format == "WEBP"
    settings = answer.data[0].settings
    assert settings["resized"] == {"width": 1536, "height": 1024}
    assert (settings["aspect_ratio"], settings["width"], settings["height"]) == ("3:2", 14, 10)
    image.save(tmp_path / "x.webp", exif=image.getexif())
    assert read_metadata(tmp_path / "x.webp")["resized"]["width"] == 1536


def test_stream_with_two_partial_images(client):
    stream = client.images.generate(
        prompt="green", stream=True, partial_images=2, size="64x64", extra_body={"seed": 3}
    )
    events = list(stream)
    assert [e.type for e in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [e.partial_image_index for e in events[:2]] == [0, 1]
    for event in events:
        assert picture(event.b64_json).size == (64, 64)
        assert event.output_format == "png" and event.size == "64x64" and event.created_at


def halves(size: int) -> tuple[Image.Image, Image.Image]:
    """A picture and a mask whose right half is transparent."""
    image = Image.new("RGB", (size, size), (200, 40, 40))
    mask = Image.new("RGBA", (size, size), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (size // 2, 0, size, size))
    return image, mask


@pytest.mark.parametrize("size", [12, 48])
def test_edit_with_a_mask_keeps_what_is_opaque(client, size):
    image, mask = halves(size)
    answer = client.images.edit(
        image=("a.png", png(image)), mask=("mask.png", png(mask)), prompt="blue", n=2,
        extra_body={"seed": 1},
    )  # fmt: skip
    for one in answer.data:
        made = pixels(picture(one.b64_json))
        assert made.shape == (size, size, 3)
        assert (made[:, : size // 2] == pixels(image)[:, : size // 2]).all()
        assert (made[:, size // 2 :] != pixels(image)[:, size // 2 :]).any()
        assert one.settings["command"] == "edit" and one.settings["tokens_drawn"] == 18
    assert [one.seed for one in answer.data] == [1, 2]


def test_an_edit_can_be_streamed_and_choose_the_best(client):
    image, mask = halves(12)
    stream = client.images.edit(
        image=("a.png", png(image)), mask=("mask.png", png(mask)), prompt="blue", stream=True,
        extra_body={"seed": 1, "best_of": 3},
    )  # fmt: skip
    events = list(stream)
    assert [e.type for e in events] == ["image_edit.completed"]


def test_variation(client):
    image, _ = halves(12)
    answer = client.images.create_variation(
        image=("a.png", png(image)), n=1, response_format="b64_json"
    )
    assert picture(answer.data[0].b64_json).size == (12, 12)
    assert answer.data[0].settings["varied"] == {"strength": 0.3}


def test_models(client, openai):
    assert [m.id for m in client.models.list()] == ["colours"]
    assert client.models.retrieve("colours").owned_by == "mlx-starflow"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-5'"):
        client.models.retrieve("gpt-5")


def test_bad_requests_raise(client, openai):
    for fields, says in [
        ({"prompt": "purple"}, "no class"),
        ({"prompt": "red", "size": "1x1"}, "from 16 to 2048"),
        ({"prompt": "red", "background": "transparent"}, "opaque"),
        ({"prompt": "red", "extra_body": {"sampler": "euler"}}, "sampler"),
        ({"prompt": "red", "extra_body": {"negative_prompt": "blue", "guidance": 0}}, "guidance"),
    ]:
        with pytest.raises(openai.BadRequestError, match=says):
            client.images.generate(**fields)
    with pytest.raises(openai.BadRequestError, match="expected at most 4000"):
        client.images.generate(prompt="x" * 5000)


def test_an_unknown_model_draws_with_the_loaded_one_and_says_so(server):
    answer = server.post("/v1/images/generations", {"prompt": "red", "model": "dall-e-2", "n": 1})
    assert answer.status_code == 200
    assert answer.headers["x-mlx-starflow-model"] == "colours"
    assert "dall-e-2 is not available" in answer.headers["x-mlx-starflow-notice"]
    url = answer.json()["data"][0]["url"]  # what DALL-E answered where nothing was asked
    assert picture(server.get(url).content).size == (12, 12)
    assert errors_as_documented(server.get(url.split("?")[0] + "x"))["code"] == "not_found"


def test_errors_of_the_other_classes(colours, tmp_path, openai):
    with (
        sf.load(colours) as pipe,
        running(pipe, tmp_path, api_key="secret", strict_model=True, max_queue=2) as server,
    ):
        base = f"{server.url}/v1"
        wrong = openai.OpenAI(base_url=base, api_key="guess", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="key is wrong"):
            wrong.models.list()
        right = openai.OpenAI(base_url=base, api_key="secret", max_retries=0)
        with pytest.raises(openai.NotFoundError, match="no model 'dall-e-3'"):
            right.images.generate(prompt="red", model="dall-e-3")
        gate = threading.Event()
        server.studio.pipe.run  # noqa: B018
        blocked = threading.Thread(
            target=lambda: server.studio.pipe._worker.call(lambda: gate.wait(30))
        )
        blocked.start()
        headers = {"authorization": "Bearer secret"}
        asked = {"method": "POST", "url": "/api/generate", "headers": headers}
        asked["json"] = {"prompt": "red", "n": 2}
        with contextlib.ExitStack() as clients:
            one = clients.enter_context(server.client.stream(**asked))
            until = time.monotonic() + 20
            while len(server.studio.scheduler.queue) and time.monotonic() < until:
                time.sleep(0.05)  # the first is taken, and blocked in the worker
            two = clients.enter_context(server.client.stream(**asked))
            assert (one.status_code, two.status_code) == (200, 200)
            with pytest.raises(openai.RateLimitError, match="are waiting") as full:
                right.images.generate(prompt="red")
            assert int(full.value.response.headers["retry-after"]) >= 1
            gate.set()
        blocked.join()

        def fails(*_, **__):
            raise ZeroDivisionError("a fault")

        until = time.monotonic() + 20
        while len(server.studio.scheduler.queue) and time.monotonic() < until:
            time.sleep(0.05)  # the two that were left are being taken out of the queue
        pipe.stream = fails
        with pytest.raises(openai.InternalServerError, match="see its log") as fault:
            right.images.generate(prompt="red")
        assert "a fault" not in str(fault.value)
        with pytest.raises(openai.APIError, match="see its log"):
            list(right.images.generate(prompt="red", stream=True, partial_images=1))
        server.studio.scheduler.queue.close()
        with pytest.raises(openai.InternalServerError, match="stopping") as stopping:
            right.images.generate(prompt="red")
        assert stopping.value.status_code == 503


def test_a_client_that_goes_away_cancels_its_work(server, openai):
    before = server.studio.scheduler.drawn
    with server.client.stream("POST", "/api/generate", json={"prompt": "red", "n": 10}) as answer:
        next(answer.iter_lines())
    impatient = openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=0.05
    )
    with pytest.raises(openai.APITimeoutError):
        impatient.images.generate(prompt="red", n=10)
    deadline = time.monotonic() + 10
    while any(server.get("/api/queue").json()[k] for k in ("waiting", "drawing")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    states = [job.state for job in server.studio.scheduler._jobs.values()][-2:]
    assert states == ["cancelled", "cancelled"]
    assert server.studio.scheduler.drawn <= before + 20


# What Open WebUI 0.6 posts for its engine "openai", with its default model and size.
OPEN_WEBUI = {
    "model": "dall-e-2",
    "prompt": "red",
    "n": 1,
    "size": "512x512",
    "response_format": "b64_json",
}


def test_open_webui(server):
    headers = {"Authorization": "Bearer sk-none", "Content-Type": "application/json"}
    answer = server.post("/v1/images/generations?api-version=1", OPEN_WEBUI, headers=headers)
    assert answer.status_code == 200
    assert picture(answer.json()["data"][0]["b64_json"]).size == (512, 512)
    assert answer.json()["data"][0].get("url") is None


def test_librechat(server):
    """image[] as a file, everything else as text, no mask: a variation led by the prompt."""
    image, _ = halves(32)
    form = {"model": "gpt-image-1", "prompt": "blue", "quality": "auto", "size": "auto"}
    files = [("image[]", ("one.png", png(image), "image/png")),
             ("image[]", ("two.png", png(image), "image/png"))]  # fmt: skip
    answer = server.post("/v1/images/edits", data=form, files=files)
    assert answer.status_code == 200, answer.text
    assert picture(answer.json()["data"][0]["b64_json"]).size == (12, 12)
    assert "Only the first image" in answer.headers["x-mlx-starflow-notice"]
