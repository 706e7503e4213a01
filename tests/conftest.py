"""Fixtures of all tests: paths of the reference cases, and converted copies of them."""

from __future__ import annotations

import gc
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: a BLAS of many threads would only wait
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import mlx_starflow  # noqa: F401  before mlx itself: it loads the fast BLAS and turns TF32 off

# isort: split
from bundles import classes_bundle, clips_bundle, colours_bundle, sentences_bundle

from convert.bundle import convert_steps
from convert.options import ConvertOptions
from mlx_starflow.export import export
from mlx_starflow.generation.components import Components

DATA = Path(__file__).parent / "data"


def pytest_xdist_auto_num_workers() -> int:
    """Processes of ``-n auto``: one more than cores, since many tests wait for a program."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """What collecting the tests has made stays to the end: tell the garbage collector, which would
    look at it again whenever a conversion calls it."""
    gc.freeze()


SHARED = Path(__file__).parents[2] / "shared" / "fixtures"


def case_dir(name: str) -> Path:
    """The directory of a reference case: the repository's own copy, else the shared one."""
    for folder in (DATA / name, SHARED / name):
        if folder.is_dir():
            return folder
    pytest.skip(f"the reference case {name!r} is not among tests/data and no shared copy is here")


def case_tensors(name: str) -> dict[str, np.ndarray]:
    """The arrays of a reference case (float32; images and latents channels first)."""
    with np.load(case_dir(name) / "tensors.npz") as arrays:
        return dict(arrays)


def case_info(name: str) -> dict:
    """case.json of a reference case."""
    return json.loads((case_dir(name) / "case.json").read_text())


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Tests use a temporary cache instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLX_STARFLOW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def other_rounding():
    """MLX_STARFLOW_TEST_NOISE=1e-6 runs all tests with products rounded as another device might,
    by so much and differently for other shapes: a test that fails then would fail on some GPU."""
    size = float(os.environ.get("MLX_STARFLOW_TEST_NOISE", 0))
    if not size:
        yield
        return
    from noise import noisy_products

    with noisy_products(size, needed=False, steady=True):
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Tests never cut the power, so files need not reach the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Programs that tests start answer Ctrl-C, even where the tests run in a background job, whose
    children would otherwise be born ignoring it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """A tiny STARFlow of pixels with the classes red, green, blue and yellow."""
    return colours_bundle(tmp_path_factory.mktemp("bundles") / "colours")


@pytest.fixture(scope="session")
def few_tokens(tmp_path_factory) -> Path:
    """The same with nine tokens, for exports: they trace every operation of a drawing."""
    return colours_bundle(tmp_path_factory.mktemp("bundles") / "few_tokens", grid_size=3)


@pytest.fixture(scope="session")
def wide(tmp_path_factory) -> Path:
    """The same, wide enough for quantization in groups of 64."""
    return colours_bundle(tmp_path_factory.mktemp("bundles") / "wide", channels=64)


@pytest.fixture(scope="session")
def many_heads(tmp_path_factory) -> Path:
    """The same with heads that 2, 3 and 4 ranks can share, and a learned denoiser."""
    folder = tmp_path_factory.mktemp("bundles") / "many_heads"
    return colours_bundle(folder, channels=24, heads=12, denoiser=True)


@pytest.fixture(scope="session")
def classes(tmp_path_factory) -> Path:
    """A tiny TarFlow with five classes."""
    return classes_bundle(tmp_path_factory.mktemp("bundles") / "classes")


@pytest.fixture(scope="session")
def filmed(tmp_path_factory) -> Path:
    """A tiny STARFlow of clips with the classes red, green, blue and yellow."""
    return clips_bundle(tmp_path_factory.mktemp("bundles") / "filmed")


@pytest.fixture(scope="session")
def narrated(converted, tmp_path_factory) -> Path:
    """A tiny STARFlow of clips from sentences, with the noise level in its prompt template."""
    folder = tmp_path_factory.mktemp("bundles") / "narrated"
    return clips_bundle(folder, converted, noise_level=0.5)


@pytest.fixture(scope="session")
def unconditional(tmp_path_factory) -> Path:
    """A tiny TarFlow without classes."""
    return classes_bundle(tmp_path_factory.mktemp("bundles") / "unconditional", num_classes=0)


@pytest.fixture(scope="session")
def converted(tmp_path_factory) -> Path:
    """The reference text-to-image pipeline (T5, flow, VAE) as a bundle, by the converter."""
    flow = case_dir("t2i_tiny")
    options = ConvertOptions(
        checkpoint=flow / "checkpoint.pth",
        output=tmp_path_factory.mktemp("bundles") / "t2i_tiny",
        config=flow / "config.yaml",
        vae=str(case_dir("vae_tiny")),
        text_encoder=str(case_dir("t5_tiny")),
    )
    *_, report = convert_steps(options)
    return report.output


@pytest.fixture(scope="session")
def sentences(converted, tmp_path_factory) -> Path:
    """A tiny text-to-image model, where the numbers are not what is tested."""
    return sentences_bundle(tmp_path_factory.mktemp("bundles") / "sentences", converted)


@pytest.fixture
def no_hub(monkeypatch) -> None:
    """As with HF_HUB_OFFLINE=1. The variable itself would stay in force for all later tests, if
    huggingface_hub, which reads it once, were imported for the first time meanwhile."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def hub():
    """A hub on loopback that has the small reference models under the published names."""
    from hub_client import repositories
    from hub_server import Hub

    with Hub(repositories()) as server:
        yield server


@pytest.fixture(scope="session")
def hub_programs(tmp_path_factory):
    """Processes that ask hubs, started when they are needed."""
    from hub_client import Programs

    programs = Programs(tmp_path_factory.mktemp("hub"))
    yield programs
    programs.close()


@pytest.fixture
def ask(hub_programs, hub, tmp_path):
    """A function that asks the hub in another process and returns its messages and result."""
    from hub_client import Clients

    return Clients(hub_programs, hub, tmp_path)


@pytest.fixture(scope="session")
def coloured(few_tokens, tmp_path_factory):
    """A step-wise export that decodes nothing, and a whole picture's."""
    folder = tmp_path_factory.mktemp("exports")
    components = Components(few_tokens, "colours")
    for what in ("picture", "steps", "score"):
        export(components, folder / what, what)
    return folder
