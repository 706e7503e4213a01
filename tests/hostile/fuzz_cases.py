"""What each fuzzer does: a function that prepares in a folder and returns one that makes and reads
a case. See ``fuzzers``."""

from __future__ import annotations

import json
import os
import random
import shutil
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
from conftest import case_dir

from .mutate import changed_bytes, changed_json, changed_text, dumped

Case = Callable[[random.Random], str]  # what became of it
Fuzzer = Callable[[Path], Case]  # prepares in a folder of its own


def settings(folder: Path) -> Case:
    """What -C does with a picture's settings, up to and now and then including the drawing."""
    import numpy as np
    from bundles import colours_bundle

    from mlx_starflow.cli.request import batches, given_noise, merged
    from mlx_starflow.generation.noise_file import noise_record
    from mlx_starflow.generation.settings import Settings, resolve
    from mlx_starflow.generation.stored import StoredSettings
    from mlx_starflow.hub.acquire import check_stored_model
    from mlx_starflow.pictures.metadata import read_metadata
    from mlx_starflow.pipeline import load

    bundle = colours_bundle(folder / "colours")
    pipe = load(bundle)
    result = pipe.generate("red", seed=3, num_images=2)
    honest = [result.metadata_of(0), {**result.metadata, "prompt": "red", "seed": 3}]
    honest.append({k: v for k, v in honest[0].items() if k != "batch"})
    honest[2]["noise"] = noise_record("a.npy", np.zeros((1, 12, 12, 3), np.float32))
    components = pipe._components if hasattr(pipe, "_components") else pipe._stages
    path = folder / "fox.json"

    def case(dice: random.Random) -> str:
        path.write_bytes(dumped(dice.choice(honest), dice))
        data = read_metadata(path)
        if dice.random() < 0.3:
            Settings.from_dict(data, str(path))
        stored = StoredSettings.from_dict(data, str(path))
        noise = given_noise(None, stored.noise)
        todo = batches([], None, None, 1, stored)
        check_stored_model(stored.model, str(path))
        options = merged({}, stored)
        for batch in todo:
            resolve(
                components.config, components.flow_config, components.factor,
                list(batch.prompts), list(batch.seeds), **options,
            )  # fmt: skip
            if dice.random() < 0.03 and len(batch.seeds) < 9:
                pipe.generate(list(batch.prompts), list(batch.seeds), noise=noise, **options)
                return "drawn"
        return "resolved"

    return case


def bundles(folder: Path) -> Case:
    """Bundles with one changed file: looked at, loaded, and drawn with where they can be."""
    from bundles import classes_bundle, colours_bundle

    from convert.bundle import convert_checkpoint
    from convert.options import ConvertOptions
    from mlx_starflow.bundle.check import problem_in_bundle
    from mlx_starflow.bundle.vocabulary import read_vocabulary
    from mlx_starflow.pipeline import load

    flow = case_dir("t2i_tiny")
    whole = folder / "whole"
    convert_checkpoint(
        ConvertOptions(
            flow / "checkpoint.pth", whole, config=flow / "config.yaml",
            vae=str(case_dir("vae_tiny")), text_encoder=str(case_dir("t5_tiny")), quantize=4,
        )
    )  # fmt: skip
    directories = [colours_bundle(folder / "colours"), classes_bundle(folder / "classes"), whole]
    for directory in directories:
        words = {"words": ["red"], "subject": ["red"], "place": []}
        (directory / "vocabulary.json").write_text(json.dumps(words))
        for sums in directory.rglob("SHA256SUMS"):
            sums.unlink()  # or every changed weight file would be refused at once
    prompts = {"colours": "red", "classes": "3", "whole": "a fox"}

    def case(dice: random.Random) -> str:
        directory = dice.choice(directories)
        files = [p for p in directory.rglob("*.json") if "tokenizer" not in p.name]
        if dice.random() < 0.15:
            files = list(directory.rglob("*.safetensors"))
        path = dice.choice(sorted(files))
        honest = path.read_bytes()
        if path.suffix == ".json":
            content = dumped(json.loads(honest), dice)
        else:  # the header and the beginning of the numbers
            content = changed_bytes(honest[:3000], dice) + honest[3000:]
        path.write_bytes(content)
        try:
            problem = problem_in_bundle(directory)
            read_vocabulary(directory)
            with load(directory) as pipe:
                if problem is None and dice.random() < 0.2:
                    pipe.generate(prompts[directory.name], seed=1, denoise=False)
                    return "drawn"
                if pipe.flow is not None and pipe.vae is not None:
                    pipe.encode_prompts(["a fox"])
                return "loaded"
        finally:
            path.write_bytes(honest)

    return case


def companions(folder: Path) -> Case:
    """The directories of autoencoders and text encoders that are converted with a checkpoint."""
    from convert.read.sources import open_checkpoint
    from convert.rules.text import text_source
    from convert.rules.vae import vae_config, vae_stores
    from mlx_starflow.config import TextConfig

    wanted = {
        "vae_tiny": None,
        "t5_tiny": TextConfig("t5", 12, 32),
        "gemma3_tiny": TextConfig("gemma", 12, 64),
    }
    for name in wanted:
        shutil.copytree(case_dir(name), folder / name)

    def case(dice: random.Random) -> str:
        name = dice.choice(list(wanted))
        files = [p for p in (folder / name).glob("*.json") if "tokenizer" not in p.name]
        path = dice.choice(sorted(files))
        honest = path.read_bytes()
        path.write_bytes(dumped(json.loads(honest), dice))
        try:
            checkpoint = open_checkpoint(folder / name)
            try:
                if wanted[name] is None:
                    vae_stores(checkpoint, vae_config(folder / name))
                else:
                    text_source(folder / name, checkpoint, wanted[name])
            finally:
                checkpoint.close()
            return "taken"
        finally:
            path.write_bytes(honest)

    return case


def tokenizers(folder: Path) -> Case:
    """tokenizer.json and tokenizer_config.json."""
    from mlx_starflow.text.tokenizer import PromptTokenizer

    embedded = Path(__file__).parents[2] / "mlx_starflow" / "assets" / "default" / "text_encoder"
    sources = [embedded, case_dir("t5_tiny"), case_dir("gemma3_tiny")]
    for i, source in enumerate(sources):
        (folder / str(i)).mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (source / name).is_file():
                shutil.copy(source / name, folder / str(i))
    texts = ["", "a fox in snow", "a" * 2000, "\U0001f98a é ﬁ \t\n", "red " * 500]
    # A panic of the library's Rust code is written to standard error before it is an error.
    null = os.open(os.devnull, os.O_WRONLY)
    os.environ["RUST_BACKTRACE"] = "0"

    def case(dice: random.Random) -> str:
        directory = folder / str(dice.randrange(len(sources)))
        names = sorted(p.name for p in directory.glob("*.json"))
        path = directory / (names[0] if dice.random() < 0.7 else names[-1])
        honest = path.read_bytes()
        path.write_bytes(dumped(json.loads(honest), dice))
        kept = os.dup(2)
        os.dup2(null, 2)
        try:
            tokenizer = PromptTokenizer(directory)
            for text in texts:
                tokenizer.pad(tokenizer.encode(text, 16).ids, 16)
            return "encoded"
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            path.write_bytes(honest)

    return case


def noise_and_yaml(folder: Path) -> Case:
    """.npy and .safetensors files of noise, noise in settings, and published YAML files."""
    import numpy as np

    from convert.read.published_yaml import read_settings
    from mlx_starflow.generation.noise_file import (
        noise_record,
        noise_settings,
        read_noise,
        recorded_noise,
        write_noise,
    )

    array = np.random.default_rng(0).standard_normal((2, 3, 3, 4)).astype(np.float32)
    np.save(folder / "a.npy", array)
    about = {"prompt": "a fox", "guidance": 2.0, "noise_seed": 1, "model": "default"}
    write_noise(folder / "a.safetensors", about, noise=mx.array(array), latents=mx.array(array))
    yaml = (case_dir("t2i_tiny") / "config.yaml").read_text()
    honest = {name: (folder / name).read_bytes() for name in ("a.npy", "a.safetensors")}
    record = noise_record("a.npy", array)
    hurtful = [
        "&a ",
        "*a",
        "<<: *a",
        "!!python/name:os.system ",
        "!!int ",
        "? [a]\n: b\n",
        "- ",
        ": ",
    ]

    def case(dice: random.Random) -> str:
        kind = dice.randrange(4)
        if kind < 2:
            path = folder / f"changed{'.npy' if kind == 0 else '.safetensors'}"
            path.write_bytes(changed_bytes(honest[f"a{path.suffix}"], dice))
            read_noise(path)
            noise_settings(path)
        elif kind == 2:
            recorded_noise(changed_json(record, dice), "fox.png")
        else:
            path, text = folder / "changed.yaml", changed_text(yaml, dice)
            for _ in range(dice.randrange(3)):
                at = dice.randrange(len(text) + 1)
                text = text[:at] + dice.choice(hurtful) + text[at:]
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
            read_settings(path)
        return "read"

    return case


def pictures(folder: Path) -> Case:
    """Picture files of every format: as pictures, as masks, and for their settings; clips for their
    frames and their settings."""
    import numpy as np
    from PIL import Image

    from mlx_starflow.pictures.clips import clip_metadata, read_clip, save_clip
    from mlx_starflow.pictures.metadata import read_metadata, save_picture
    from mlx_starflow.pictures.read import open_mask, open_picture

    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), np.uint8)
    colour, about = Image.fromarray(pixels[..., :3]), {"generator": "mlx-starflow", "seed": 1}
    honest: dict[str, bytes] = {}
    for name in ("a.png", "b.jpg", "c.webp"):
        save_picture(colour, folder / name, about)
    for name, image in {
        "d.gif": colour.quantize(16), "e.bmp": colour, "f.tif": colour, "g.ppm": colour,
        "h.png": Image.fromarray(pixels), "i.png": Image.fromarray(pixels[..., 0]),
        "j.webp": Image.fromarray(pixels), "k.tif": colour.convert("CMYK"),
        "l.png": Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
    }.items():  # fmt: skip
        image.save(folder / name)
    colour.save(folder / "m.tif", compression="tiff_lzw")
    frames = [colour, colour.rotate(90, expand=False)]
    frames[0].save(folder / "n.png", save_all=True, append_images=frames[1:])
    (folder / "o.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\nshowpage\n")
    for path in sorted(folder.iterdir()):
        honest[path.name] = path.read_bytes()
    clips = np.stack([np.asarray(colour.resize((32, 32)))] * 3)
    kinds = [".gif", ".webp", ".png"]
    if find_spec("av"):
        import av

        av.logging.set_level(av.logging.PANIC)
        kinds.append(".mp4")
    films = {
        kind: save_clip(clips, folder / f"film{kind}", 8, about).read_bytes() for kind in kinds
    }
    # Pillow warns of damaged EXIF data, and libtiff writes to standard error itself.
    null = os.open(os.devnull, os.O_WRONLY)

    def case(dice: random.Random) -> str:
        if dice.random() < 0.3:
            kind = dice.choice([*films, kinds[-1]])
            path, content = folder / f"changed{kind}", films[kind]
            use = dice.choice([read_clip, clip_metadata])
        else:
            name = dice.choice(list(honest))
            path, content = folder / f"changed{Path(name).suffix}", honest[name]
            use = dice.choice([open_picture, read_metadata, lambda p: open_mask(p, (20, 24))])
        path.write_bytes(changed_bytes(content, dice))
        kept = os.dup(2)
        os.dup2(null, 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                use(path)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        return "opened"

    return case


def references(folder: Path) -> Case:
    """References of ``watch``: read, and a picture is compared with them."""
    import numpy as np
    from bundles import classes_bundle
    from PIL import Image

    from mlx_starflow.pictures.read import Picture
    from mlx_starflow.pipeline import load
    from mlx_starflow.watch import check, fit, read_reference, write_reference
    from mlx_starflow.watch.reference import FEWEST

    pipe = load(classes_bundle(folder / "unconditional", num_classes=0))
    pixels = np.random.default_rng(0).integers(0, 256, (FEWEST, 8, 8), np.uint8)
    known = [Picture(Image.fromarray(p).convert("RGB"), "a.png") for p in pixels]
    made = fit(pipe, known, "1:1", draws=1)
    path = write_reference(folder / "normal.json", made)
    honest = json.loads(path.read_text())
    arrays = ("parts", "lost", "detail", "png", "calibration")
    settings = {name: value for name, value in honest.items() if name not in arrays}

    def case(dice: random.Random) -> str:
        if dice.random() < 0.6:  # few of the values are not in the arrays
            data = changed_json(settings, dice)
            if isinstance(data, dict):
                data = {**{name: honest[name] for name in arrays}, **data}
            path.write_bytes(json.dumps(data).encode("utf-8", "surrogatepass"))
        else:
            path.write_bytes(dumped(honest, dice))
        (found,) = check(pipe, read_reference(path), known[:1])
        assert 0 < found.p_value <= 1 and np.isfinite(found.map).all(), found
        return "checked"

    return case


def compressed(folder: Path) -> Case:
    """Files of ``compress``: damaged, damaged with a right checksum of the file, and with all
    checksums right, as somebody who knows the format would write them."""
    import dataclasses

    from bundles import classes_bundle

    from mlx_starflow.codec import compress, decompress, file, inspect
    from mlx_starflow.exact.codec import decode_tokens
    from mlx_starflow.flow.grid import Grid
    from mlx_starflow.pipeline import load

    pipe = load(classes_bundle(folder / "unconditional", num_classes=0))
    honest = [
        compress(pipe, pipe.generate(seed=i).images[0], step) for i, step in enumerate((0.02, 1.0))
    ]
    grid = Grid(4, 4)

    def signed(header: file.Header, code: bytes) -> bytes:
        found = decode_tokens(pipe.flow, code, header.extent, grid, None, header.step, header.seed)
        return file.write(header, found.symbols, code)

    def case(dice: random.Random) -> str:
        whole = dice.choice(honest)
        kind = dice.randrange(3)
        if kind == 0:
            data = changed_bytes(whole, dice)
        elif kind == 1:
            data = changed_bytes(whole, dice)
            at = file.header_end(data)
            check = int.from_bytes(data[at : at + 4], "big")
            data = file.with_checks(data[:at], check, data[at + 6 :])
        else:
            header, code = file.read(whole)
            strange = {
                "step_units": dice.choice([1, 2, 1 << 10, (1 << 16) - 1]),
                "extent": dice.randint(1, 31),
                "seed": dice.choice([1, 1 << 31, (1 << 32) - 1]),
            }
            names = dice.sample(sorted(strange), dice.randrange(3))
            code = changed_bytes(code, dice) if dice.random() < 0.7 else code
            header = dataclasses.replace(header, **{name: strange[name] for name in names})
            data = signed(header, code)
        inspect(data)
        decompress(pipe, data, denoise=dice.random() < 0.1)
        return "drawn"

    return case
