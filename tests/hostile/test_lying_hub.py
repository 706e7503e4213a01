"""A hub that lies: no file outside of the cache, no endless body, no endless asking, no wrong byte
kept, no licence left behind."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hub_client import CHECKPOINT, LICENCE

import mlx_starflow as sf
from mlx_starflow.bundle.check import problem_in_bundle
from mlx_starflow.errors import HubError, WeightsError
from mlx_starflow.hub import download, requests, resolve, resumable
from mlx_starflow.hub.integrity import check_component

DATA = bytes(range(256)) * 100


@pytest.fixture
def here(hub, tmp_path, monkeypatch) -> Callable[[str, str], Path]:
    """fetch(repository, name) in this process, from the hub into a cache in tmp_path."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("MLX_STARFLOW_CACHE", str(tmp_path / "converted"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(resumable, "WAITS", (0.01, 0.02))
    return lambda repository, name: download.fetch(download.RemoteFile(repository, name, 0))


def refusal(function: Callable[[], object]) -> str:
    with pytest.raises(HubError) as caught:
        function()
    return str(caught.value)


def requests_for(hub, name: str = "/resolve/") -> int:
    return sum(r.method == "GET" and name in r.path for r in hub.requests)


def written(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def endless(handler, data: bytes, start: int) -> None:
    """As many bytes as are taken, of no announced length."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    try:
        for _ in range(2000):
            handler.wfile.write(bytes(1 << 20))
    except OSError:
        return


def portal(handler, data: bytes, start: int) -> None:
    """200 and a small page, as a captive portal answers everything."""
    body = b"<html>Please log in to this network</html>"
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def unmeasured_portal(handler, data: bytes, start: int) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    handler.wfile.write(b"<html>Please log in</html>")


def empty(handler, data: bytes, start: int) -> None:
    """The right part of the file, without its bytes."""
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True


def other_part(handler, data: bytes, start: int) -> None:
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {start + 7}-{len(data) - 1}/{len(data)}")
    handler.send_header("Content-Length", str(len(data) - start - 7))
    handler.end_headers()
    handler.wfile.write(data[start + 7 :])


def nothing_new(handler, data: bytes, start: int) -> None:
    """The beginning again and again: bytes arrive, and it never gets further."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    handler.wfile.write(data[: len(data) // 2])


@pytest.mark.parametrize(
    "lie",
    [endless, portal, unmeasured_portal, empty, other_part, nothing_new],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("announced", [True, False], ids=["SHA-256", "another hash"])
def test_an_answer_that_is_not_the_file(lie, announced, hub, here, tmp_path):
    hub.repositories["some/model"] = {"big.bin": DATA}
    hub.lies["big.bin"] = lie
    if not announced:
        hub.etags["big.bin"] = "an-etag-of-another-kind"
    began = time.monotonic()
    assert "big.bin" in refusal(lambda: here("some/model", "big.bin"))
    assert time.monotonic() - began < 20
    assert requests_for(hub) <= 10
    assert written(tmp_path) < len(DATA) + 1e6
    del hub.lies["big.bin"]
    assert here("some/model", "big.bin").read_bytes() == DATA


def trickle(handler, data: bytes, start: int, status: int = 200) -> None:
    """One byte after the other, never so slowly that a read times out."""
    handler.send_response(206 if start else status)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.send_header("Content-Length", str(len(data) - start))
    handler.end_headers()
    handler.close_connection = True
    try:
        for byte in data[start:]:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.02)
    except OSError:
        return


def test_a_file_that_trickles(hub, here, tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(resumable, "MAX_ATTEMPTS", 4)
    hub.repositories["some/model"] = {"big.bin": DATA}
    hub.lies["big.bin"] = trickle  # 512 s for the whole file
    began = time.monotonic()
    said = refusal(lambda: here("some/model", "big.bin"))
    assert "big.bin" in said and "interrupted 4 times" in said
    assert time.monotonic() - began < 10 and requests_for(hub) == 4
    # What arrived is kept.
    assert 0 < sum(p.stat().st_size for p in tmp_path.rglob("*.resumable")) < len(DATA)
    del hub.lies["big.bin"]
    assert here("some/model", "big.bin").read_bytes() == DATA


def test_a_listing_that_trickles(hub, here, monkeypatch):
    monkeypatch.setattr(requests, "LISTING_SECONDS", 0.2)
    hub.lies["listing"] = lambda handler, *_: trickle(handler, DATA, 0)
    began = time.monotonic()
    assert "does not end" in refusal(lambda: download.list_repository("apple/starflow"))
    hub.lies["listing"] = lambda handler, *_: trickle(handler, DATA, 0, 500)
    refusal(lambda: download.list_repository("apple/starflow"))
    assert time.monotonic() - began < 10


def test_a_listing_that_is_none(hub, here, tmp_path):
    hub.lies["listing"] = endless
    assert "does not end" in refusal(lambda: download.list_repository("apple/starflow"))
    hub.lies["listing"] = portal
    assert "not that of a model hub" in refusal(lambda: download.list_repository("apple/starflow"))
    assert written(tmp_path) < 1e6


def longer(handler, data: bytes, start: int) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    handler.wfile.write(data + b"more")


def test_a_file_that_is_longer_than_announced(hub, here):
    hub.repositories["some/model"] = {"big.bin": DATA}
    hub.etags["big.bin"] = "no-hash"
    hub.lies["big.bin"] = longer
    assert "more than the 25600 bytes" in refusal(lambda: here("some/model", "big.bin"))


@pytest.mark.parametrize("etag", ["ROOT/planted", "../../planted", "a/b", "..", "a.b"])
def test_a_hash_that_is_a_path(etag, hub, here, tmp_path):
    hub.repositories["some/model"] = {"small.json": b"{}"}
    hub.etags["small.json"] = etag.replace("ROOT", str(tmp_path))  # an absolute path
    assert "is invalid" in refusal(lambda: here("some/model", "small.json"))
    assert not list(tmp_path.rglob("planted*"))


def test_a_wrong_hash_of_a_small_file(hub, here):
    hub.repositories["some/model"] = {"small.json": b"{}"}
    hub.etags["small.json"] = "0" * 40  # git's
    assert "SHA-1" in refusal(lambda: here("some/model", "small.json"))
    hub.etags["small.json"] = "9e26dfeeb6e641a33dae4961196235bdb965b21b"  # git hash-object
    assert here("some/model", "small.json").read_bytes() == b"{}"


NAMES = ["../../outside.json", "ROOT/outside.json", "a/../../outside.json", "a\\..\\outside.json",
         "flow//outside.json", "./outside.json", "C:outside.json",
         "\x1b[2Joutside.json"]  # fmt: skip


def bundle_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def get(name: str) -> Path:
    return resolve.resolve(name, converter=lambda *_: None)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_lead_outside(name, hub, here, colours, tmp_path):
    name = name.replace("ROOT", str(tmp_path))  # an absolute path
    hub.repositories["some/colours"] = {**bundle_files(colours), name: b"{}"}
    said = refusal(lambda: get("some/colours"))
    assert "outside its directory" in said and "\x1b" not in said
    assert "outside" in refusal(lambda: here("some/colours", name))
    assert not list(tmp_path.rglob("*outside.json"))


def test_sizes_that_contradict_each_other(hub, here, colours):
    hub.repositories["some/colours"] = bundle_files(colours)
    hub.sizes["flow/model.safetensors"] = 10
    assert "its listing says 10" in refusal(lambda: get("some/colours"))
    hub.sizes["flow/model.safetensors"] = -3
    assert "siblings" in refusal(lambda: get("some/colours"))
    hub.sizes["flow/model.safetensors"] = 1 << 50
    assert "free" in refusal(lambda: get("some/colours"))


# What the cache holds


def blobs(folder: Path) -> dict[int, Path]:
    return {p.stat().st_size: p for p in (folder / "hf").rglob("blobs/*") if p.is_file()}


@pytest.mark.parametrize("damage", ["truncated", "zeroed"])
def test_a_damaged_file_of_the_cache_is_fetched_again(damage, hub, here, tmp_path):
    def component() -> Path:
        return resolve.download_component("stabilityai/sd-vae-ft-ema", "vae")

    path = component()
    blob = max(blobs(tmp_path).items())[1]
    honest = blob.read_bytes()
    data = honest[:-1000] if damage == "truncated" else honest[:5000] + bytes(1000) + honest[6000:]
    assert data != honest
    blob.write_bytes(data)
    hub.requests.clear()
    assert component() == path and blob.read_bytes() == honest
    assert requests_for(hub) == 1
    hub.requests.clear()
    assert component() == path and hub.requests == []


def test_a_damaged_bundle_of_the_cache_is_not_drawn_with(hub, here, colours):
    files = hub.repositories["some/colours"] = bundle_files(colours)
    path = get("some/colours")
    blob = (path / "flow" / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-2000:-1000] = bytes(1000)
    blob.write_bytes(data)
    with pytest.raises(WeightsError, match="has changed since"):
        check_component(path / "flow")
    assert get("some/colours") == path
    assert blob.read_bytes() == files["flow/model.safetensors"]
    check_component(path / "flow")


def test_a_converted_copy_that_was_damaged_is_not_drawn_with(colours, tmp_path):
    copy = shutil.copytree(colours, tmp_path / "copy")
    with sf.load(copy) as pipe:
        assert pipe.flow is not None
    weights = copy / "flow" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2000:-1000] = bytes(1000)
    weights.write_bytes(data)
    with sf.load(copy) as pipe, pytest.raises(WeightsError, match="has changed since"):
        pipe.generate("red", seed=1)


def converted(told: list | None = None) -> Path:
    """The published model, fetched and converted as a program would."""
    from convert.from_hub import convert_sources

    tell = None if told is None else told.append
    return resolve.resolve("apple/starflow", lambda s, o: convert_sources(s, o), tell=tell)


def test_a_download_interrupted_at_the_licence(hub, here):
    hub.refusals["LICENSE"] = (501, "")
    assert "LICENSE" in refusal(converted)
    hub.refusals.clear()
    bundle = converted()
    assert problem_in_bundle(bundle) is None and (bundle / "LICENSE").read_bytes() == LICENCE


def test_a_checkpoint_that_another_program_downloaded_without_its_licence(hub, here, monkeypatch):
    from huggingface_hub import constants

    here("apple/starflow", CHECKPOINT)
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "licence of apple/starflow is not on this disk" in refusal(converted)
    told: list = []
    bundle = converted(told)
    names = [file.name for file in told[0].files]
    assert CHECKPOINT not in names and "LICENSE" in names
    assert (bundle / "LICENSE").read_bytes() == LICENCE


def test_a_downgrade_is_not_followed():
    from mlx_starflow.hub import requests

    class Answer:
        status_code = 200

        class url:
            scheme = "http"

    class Session:
        def stream(self, *_, **__):
            import contextlib

            return contextlib.nullcontext(Answer())

    import huggingface_hub.utils as utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "get_session", lambda: Session())
        with pytest.raises(HubError, match="not followed"), requests._answer("https://hub/x", {}):
            pass


# The token


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str | None]]]:
    """Another server: its address, and the tokens that it received."""
    received: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/big.bin", received
        server.shutdown()


def test_the_token_is_not_sent_to_another_host(hub, here, elsewhere, monkeypatch):
    address, received = elsewhere
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def redirect(handler, data: bytes, start: int) -> None:
        handler.send_response(302)
        handler.send_header("Location", address)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    hub.repositories["some/model"] = {"big.bin": DATA}
    hub.lies["big.bin"] = redirect
    url = f"{hub.url}/some/model/resolve/main/big.bin"
    pieces = b"".join(piece for _, piece in requests.file_pieces(url, 0, len(DATA)))
    assert pieces == DATA and received == [None]
    assert hub.requests[-1].token == "hf_secret"
