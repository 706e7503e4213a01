"""The host in C++ draws the pictures of Python, without Python, and refuses what does not fit."""

from __future__ import annotations

import dataclasses
import shutil

import mlx.core as mx
import numpy as np
import pytest
from bundles import write_bundle
from conftest import case_info
from converting import convert
from native_host import host  # noqa: F401
from test_export import LATENT
from test_export_folder import cut, edited, replace

import mlx_starflow as sf
from mlx_starflow.device.activations import on_gpu
from mlx_starflow.exact.noise import seeded_noise
from mlx_starflow.export import export
from mlx_starflow.generation.components import Components
from mlx_starflow.hub.locate import EMBEDDED
from recipes.default_model.tokenizer import build_core

DEFAULT = EMBEDDED["default"]

pytestmark = pytest.mark.slow  # compiling the host takes long; CI has a step of its own for it


def agree(
    native, folder, bundle, prompt, quantize=None, parts=("picture", "steps", "score"), ids=()
):
    """Draw and score in both; ``ids``: the tokens of the prompt, where the host has no
    tokenizer for it."""
    pipe = sf.load(bundle, quantize=quantize)
    exports = {
        what: export(Components(bundle, "m", quantize=quantize), folder / what, what).path
        for what in parts
    }
    asked = ["--ids", ",".join(map(str, ids))] if ids else [prompt]
    shape = sf.exported.load(next(iter(exports.values()))).data["noise"]["shape"]
    noise = seeded_noise(shape[1:], [7])
    drawn = pipe.generate(prompt, noise=noise, sampler="sequential")
    size = max(1.0, mx.abs(drawn.latents).max().item())
    for what in ("picture", "steps"):
        if what in exports:
            latent, picture = native.draw(exports[what], folder, noise, *asked)
            assert mx.abs(latent - drawn.latents).max().item() <= LATENT * size
            assert np.abs(picture - np.array(drawn.images[0]).astype(int)).max() <= 1
            assert native.run(exports[what], "--check").returncode == 0
    if "score" in exports:
        context = pipe.prompt_rows([prompt]).own([prompt])
        expected = sf.log_prob(pipe.flow, drawn.latents, context).item()
        found = native.score(exports["score"], folder, drawn.latents, *asked)
        assert found == pytest.approx(expected, rel=1e-5)
    return exports


def test_a_small_starflow(host, few_tokens, tmp_path):  # noqa: F811
    agree(host, tmp_path, few_tokens, "green")


def test_a_small_tarflow_with_its_own_noise(host, classes, tmp_path):  # noqa: F811
    exports = agree(host, tmp_path, classes, "3")
    seeded = sf.load(classes).generate("3", seed=11, sampler="sequential")
    done = host.run(
        exports["steps"], "3", "--seed", 11, "--output", tmp_path / "a.png",
        "--latent", tmp_path / "a.safetensors",
    )  # fmt: skip
    assert done.returncode == 0 and "largest residual" in done.stderr
    latent = mx.load(str(tmp_path / "a.safetensors"))["latent"]
    assert mx.abs(latent - seeded.latents).max().item() <= LATENT


def test_a_learned_denoiser(host, few_tokens, tmp_path):  # noqa: F811
    config = Components(few_tokens, "colours").flow_config
    config = dataclasses.replace(config, denoiser=config.blocks[-1])
    text = Components(few_tokens, "colours").config.text
    bundle = write_bundle(tmp_path / "bundle", config, text, "denoised")
    agree(host, tmp_path, bundle, "red")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """The embedded model's text encoder and tokenizer."""
    return export(Components(DEFAULT, "m"), tmp_path_factory.mktemp("text") / "text", "text").path


def test_its_tokenizer_is_that_of_the_embedded_model(host, spoken):  # noqa: F811
    exported = sf.exported.load(spoken)
    prompts = [
        "a fox in snow", "", "Three RED foxes, at night!", "under_score 2 3foxes", "mauve fox",
        " spaces \t and\nlines ", "a " * 40,
    ]  # fmt: skip
    for prompt in prompts:
        done = host.run(spoken, prompt, "--tokenize")
        assert tuple(map(int, done.stdout.split())) == exported.prompts.ids(prompt)
    for prompt, said in [("füchse", "ASCII only"), ("a <bos> fox", "special token <bos>")]:
        done = host.run(spoken, prompt, "--tokenize")
        assert done.returncode == 1 and said in done.stderr and not done.stdout


def test_its_tokenizer_replaces_synonyms(host, spoken, tmp_path):  # noqa: F811
    path = tmp_path / "copy"
    shutil.copytree(spoken, path)
    file = path / "tokenizer" / "tokenizer.json"
    build_core().save(str(file))
    data = sf.exported.read_manifest(spoken)
    sums = {"bytes": file.stat().st_size, "sha256": sf.exported.check_sum(file)}
    edited(path, files=data["files"] | {"tokenizer/tokenizer.json": sums})
    exported = sf.exported.load(path)
    for prompt in (
        "a pair of kitties in the starry sky!",
        "2 polar bears; a hot-air balloon",
        "$1",
    ):
        done = host.run(path, prompt, "--tokenize")
        assert tuple(map(int, done.stdout.split())) == exported.prompts.ids(prompt), done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: edited(p, mlx_version="0.1.2"), "made with MLX 0.1.2, but"),
        (lambda p: edited(p, device="cpu" if on_gpu() else "gpu"), "made for the device"),
        (lambda p: edited(p, functions={"a": {"file": "../a.mlxfn"}}), "not among its files"),
        (lambda p: edited(p, format_version=2), "a format that this program does not know"),
        (lambda p: edited(p, format="other"), "is not an export"),
        (lambda p: (p / "export.json").write_text("{"), "is not JSON"),
        (lambda p: (p / "export.json").write_text("{}"), "is not an export"),
        (lambda p: replace(p / "export.json", b"chan", b"CHAN"), "fingerprint"),
        (lambda p: replace(p / "text.mlxfn", None, b"x"), "its checksum"),
        (lambda p: cut(p / "text.mlxfn"), "another size"),
        (lambda p: (p / "text.mlxfn").unlink(), "is missing"),
        (lambda p: (p / "export.json").unlink(), "is no export"),
    ],
)
def test_what_does_not_fit_is_refused(host, spoken, tmp_path, change, said):  # noqa: F811
    path = tmp_path / "copy"
    shutil.copytree(spoken, path)
    change(path)
    done = host.run(path, "a fox", "--tokenize")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("starflow: ") and said in done.stderr
    assert done.stderr.count("\n") == 1


def test_mistakes_are_named(host, spoken, tmp_path):  # noqa: F811
    for arguments, said in [
        ([], "usage:"),
        ([spoken, "a fox", "--sed", "7"], "no option --sed"),
        ([spoken, "a fox", "--seed"], "needs a value"),
        ([spoken, "a fox", "--seed", "seven"], "expected a whole number"),
        ([spoken, "a", "fox"], "quotation marks"),
        ([spoken, "a fox", "--output", tmp_path / "no.png"], "no function"),
    ]:
        done = host.run(*arguments)
        assert done.returncode == 1 and said in done.stderr and not done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quantize", [None, 4])
def test_the_embedded_model(host, tmp_path, quantize):  # noqa: F811
    agree(host, tmp_path, DEFAULT, "a fox in snow", quantize)
    if quantize is None:
        stored = sum(p.stat().st_size for p in DEFAULT.rglob("*") if p.is_file())
        for what in ("picture", "steps", "score"):
            written = sum(p.stat().st_size for p in (tmp_path / what).rglob("*") if p.is_file())
            assert written <= 1.5 * stored


def test_tiles(host, tmp_path):  # noqa: F811
    exported = export(Components(DEFAULT, "m"), tmp_path / "tiles", "steps", tile=8).path
    python = sf.exported.load(exported)
    assert python.data["decoder"]["kind"] == "tiles"
    noise = seeded_noise(python.data["noise"]["shape"][1:], [7])
    _, picture = host.draw(exported, tmp_path, noise, "a fox in snow")
    drawn = python.generate(noise, "a fox in snow")
    assert np.abs(picture - np.array(drawn.images[0]).astype(int)).max() <= 1


@pytest.mark.parametrize("quantize", [None, 4])
def test_the_reference_pipeline(host, converted, tmp_path, quantize):  # noqa: F811
    ids = sf.load(converted).text_encoder.tokenizer.encode("a fox in snow", 10_000).ids
    agree(host, tmp_path, converted, "a fox in snow", quantize, ids=ids)


@pytest.mark.parametrize("case", ["tarflow_cond", "tarflow_uncond", "tarflow_vp"])
@pytest.mark.parametrize("quantize", [None, 4])
def test_the_reference_tarflows(host, tmp_path, case, quantize):  # noqa: F811
    bundle = convert(tmp_path / "bundle", case, noise_std=case_info(case)["noise_std"]).output
    agree(host, tmp_path, bundle, "1" if sf.load(bundle).flow_config.num_classes else "", quantize)
