"""The commands `video` and `score --clips`: files, replay, mistakes, the embedded model."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import run  # noqa: F401
from PIL import Image
from teaching import adapter

import mlx_starflow as sf
from mlx_starflow.hub.locate import EMBEDDED
from mlx_starflow.pictures.clips import (
    clip_metadata,
    read_clip,
)
from mlx_starflow.text.tokenizer import PromptTokenizer


def test_command(run, filmed, tmp_path):  # noqa: F811
    film = ("video", "red", "-m", filmed, "--frames", 9, "--seed", 3)
    done = run(*film, "-o", tmp_path / "a.webp", "--preview-frames", tmp_path / "p", "--json")
    assert done.status == 0, done.err
    (record,) = json.loads(done.out)["clips"]
    assert record["command"] == "video" and record["frames"] == 9 and record["seed"] == 3
    assert len(list((tmp_path / "p").iterdir())) == 9
    with sf.load(filmed) as pipe:
        clip = pipe.generate("red", seed=3, frames=9).clips[0]
    shown = np.asarray(Image.open(tmp_path / "p" / "seed_3_frame_0004.png"))
    assert np.array_equal(shown, clip[4])
    # Again from what is in the file, to the bit; and longer, with what is asked besides.
    again = run("video", "-C", tmp_path / "a.webp", "-o", tmp_path / "b")
    assert again.status == 0, again.err
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b" / "frame_0004.png")), clip[4])
    longer = run("video", "-C", tmp_path / "a.webp", "--seconds", 2, "-o", tmp_path / "c.gif")
    assert longer.status == 0 and clip_metadata(tmp_path / "c.gif")["frames"] == 17


def test_the_aspect_ratio_on_the_command_line(run, filmed):  # noqa: F811
    film = ("video", "red", "-m", filmed, "--frames", 5, "--seed", 3)
    sizes = {}
    for ratio in ("1:1", "16:9", "9:16"):
        done = run(*film, "--aspect-ratio", ratio, "-o", f"{ratio.replace(':', '-')}.png", "--json")
        assert done.status == 0, done.err
        (record,) = json.loads(done.out)["clips"]
        assert record["aspect_ratio"] == ratio
        sizes[ratio] = read_clip(Path(record["path"]))[0].size
        assert sizes[ratio] == (record["width"], record["height"])
    assert sizes == {"1:1": (32, 32), "16:9": (48, 32), "9:16": (32, 48)}


def test_the_word_of_continued_clips_is_put_before_the_caption(run, narrated, monkeypatch):  # noqa: F811
    texts, encode = [], PromptTokenizer.encode

    def read(self, text, length):
        texts.append(text)
        return encode(self, text, length)

    monkeypatch.setattr(PromptTokenizer, "encode", read)
    film = ("video", "a fox", "-m", narrated, "--frames", 5, "--seed", 3)
    for flags, word in (([], ""), (["--extend-word"], "(extend) ")):
        texts.clear()
        done = run(*film, *flags, "-o", f"{len(flags)}.webp")
        assert done.status == 0, done.err
        captions = {f"Noise Level 500:\nA video with 8 fps:\n{word}a fox\n",
                    "Noise Level 500:\nA video with 8 fps:\n\n"}  # fmt: skip
        assert set(texts) == captions
    assert clip_metadata(Path("1.webp"))["extend"] is True


def test_an_adapter_changes_the_clip_and_is_recorded(run, filmed, colours, tmp_path):  # noqa: F811
    style = adapter(filmed, tmp_path / "style")
    command = ("video", "red", "-m", filmed, "--seed", 3, "--frames", 5)
    plain = run(*command, "-o", "plain.webp")
    made = run(*command, "--lora", style, 0.5, "-o", "styled.webp")
    assert plain.status == made.status == 0, made.err
    stored = clip_metadata(tmp_path / "styled.webp")
    assert [(a["path"], a["scale"]) for a in stored["adapters"]] == [(str(style), 0.5)]
    clips = [read_clip(tmp_path / name) for name in ("plain.webp", "styled.webp")]
    assert not np.array_equal(np.stack(clips[0]), np.stack(clips[1]))
    again = run("video", "-C", "styled.webp", "-o", "again.webp")
    assert again.status == 0 and again.err == "", again.err
    assert np.array_equal(np.stack(clips[1]), np.stack(read_clip(tmp_path / "again.webp")))
    foreign = adapter(colours, tmp_path / "foreign")
    refused = run(*command, "--adapter-path", foreign)
    assert refused.status == 1 and "was made for the model 'colours'" in refused.err


def test_seeds_drawn_at_random_are_shown(run, filmed):  # noqa: F811
    made = run(
        "video", "red", "-m", filmed, "--frames", 1, "--auto-seeds", 2, "-o", "a.webp", "--json"
    )
    seeds = [str(clip["seed"]) for clip in json.loads(made.out)["clips"]]
    assert made.err == f"Random seeds: {', '.join(seeds)}.\n"


def test_command_with_a_beginning(run, filmed, tmp_path):  # noqa: F811
    Image.new("RGB", (50, 40), "teal").save(tmp_path / "first.png")
    film = ("video", "blue", "-m", filmed, "--frames", 9, "--seed", 3)
    done = run(*film, "--image", tmp_path / "first.png", "-o", tmp_path / "a.gif")
    assert done.status == 0, done.err
    given = clip_metadata(tmp_path / "a.gif")["given"]
    assert given["kind"] == "image" and given["file"].endswith("first.png")
    again = run("video", "-C", tmp_path / "a.gif", "-o", tmp_path / "b.gif")
    assert again.status == 0, again.err
    assert [f.tobytes() for f in read_clip(tmp_path / "a.gif")] == [
        f.tobytes() for f in read_clip(tmp_path / "b.gif")
    ]
    longer = run("video", "red", "-m", filmed, "--video", tmp_path / "a.gif", "--frames", 13,
                 "--context", 1, "-o", tmp_path / "c.gif")  # fmt: skip
    assert longer.status == 0, longer.err
    Image.new("RGB", (50, 40), "red").save(tmp_path / "first.png")
    changed = run("video", "-C", tmp_path / "a.gif", "-o", tmp_path / "d.gif")
    assert changed.status == 1 and "content has changed" in changed.err
    (tmp_path / "first.png").unlink()
    gone = run("video", "-C", tmp_path / "a.gif", "-o", tmp_path / "d.gif")
    assert gone.status == 1 and "no longer exists" in gone.err


def test_scores_by_frame(run, filmed, tmp_path):  # noqa: F811
    run("video", "red", "-m", filmed, "--frames", 9, "--seed", 1, "-o", tmp_path / "a")
    score = ("score", tmp_path / "a", "--clips", "-m", filmed, "--prompt", "red", "--draws", 2)
    done = run(*score, "--json")
    assert done.status == 0, done.err
    (record,) = json.loads(done.out)["images"]
    assert len(record["frames"]) == 3
    assert np.mean(record["frames"]) == pytest.approx(
        record["prompts"][0]["bits_per_dim"], abs=1e-4
    )
    assert "every latent frame" in run(*score).out
    assert run("score", tmp_path / "a", "--clips", "-m", filmed, "--map", "m.png").status == 2


def test_mistakes_on_the_command_line(run, filmed, colours, tmp_path):  # noqa: F811
    film = ("video", "red", "-m", filmed, "--frames", 9, "--seed", 1)
    for more, message in (
        (("-o", tmp_path / "a.avi"), "clips are written as"),
        (("--seconds", 2), "give one of them"),
        (("--image", tmp_path / "none.png"), "no such file"),
        (("--frames", 21, "--window", 3, "--context", 3), "--context is 3"),
        (("--fps", 0), "greater than or equal to 1"),
    ):
        wrong = run(*film, *more)
        assert wrong.status == 2 and message in wrong.err, (more, wrong.err)
    pictures = run("video", "red", "-m", colours, "--frames", 9, "-o", tmp_path / "a.gif")
    assert pictures.status == 2 and "makes pictures" in pictures.err
    assert not list(tmp_path.iterdir())


def test_the_embedded_model_draws_the_motion_of_the_prompt(run, tmp_path):  # noqa: F811
    """A fox, which is orange, goes to the side that the prompt says."""
    held = sum(p.stat().st_size for p in EMBEDDED["clips"].rglob("*") if p.is_file())
    assert held <= 15_000_000
    for side, sign in (("left", -1), ("right", 1)):
        path = tmp_path / f"{side}.webp"
        made = run("video", f"a fox walks to the {side} in snow", "--seed", 0, "-o", path)
        assert made.status == 0, made.err
        frames = [np.asarray(f.convert("RGB")).astype(int) for f in read_clip(path)]
        assert len(frames) == 17 and frames[0].shape == (64, 64, 3)
        places = [np.argwhere((f[..., 0] > 180) & (f[..., 2] < 110))[:, 1] for f in frames]
        assert sign * (places[-1].mean() - places[0].mean()) > 4, side
    shown = run("models", "show", "clips")
    assert shown.status == 0 and "motion" in shown.out


def test_the_model_of_clips_in_the_package_is_the_default(run, filmed, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(EMBEDDED, "clips", filmed)
    made = run("video", "red", "--seed", 1, "--frames", 5, "-o", tmp_path / "a.webp")
    assert made.status == 0 and clip_metadata(tmp_path / "a.webp")["model"] == "clips"
    assert run("video", "-C", tmp_path / "a.webp", "-o", tmp_path / "b.webp").status == 0
    made, again = ([np.asarray(f) for f in read_clip(tmp_path / n)] for n in ("a.webp", "b.webp"))
    assert np.array_equal(made, again)
    monkeypatch.setitem(EMBEDDED, "clips", tmp_path / "none")
    gone = run("video", "red", "--seed", 1, "-o", tmp_path / "c.webp")
    assert gone.status == 2 and "lacks the embedded model 'clips'" in gone.err


def test_clips_and_pictures_are_repeated_by_their_own_commands(run, filmed, tmp_path):  # noqa: F811
    run("video", "red", "-m", filmed, "--frames", 5, "--seed", 1, "-o", tmp_path / "a.webp")
    run("generate", "red", "-m", filmed, "--seed", 1, "-o", tmp_path / "b.png")
    wrong = run("generate", "-C", tmp_path / "a.webp", "-o", tmp_path / "c.png")
    assert wrong.status != 0 and "mlx-starflow video -C" in wrong.err
    wrong = run("video", "-C", tmp_path / "b.png", "-o", tmp_path / "c.gif")
    assert wrong.status != 0 and "mlx-starflow generate" in wrong.err
