"""The recipe of the model of clips, end to end at toy scale (needs PyTorch; slow)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from test_recipe_default_model import one_thread  # noqa: E402, F401  used by every test

pytestmark = pytest.mark.slow


def test_from_nothing_to_a_bundle_that_moves(tmp_path):
    import mlx_starflow as sf
    from recipes.clip_model.make import STAGES, make
    from recipes.clip_model.settings import toy

    make(tmp_path, toy())
    assert '"prompts": 2' in (tmp_path / "evaluate" / "report.json").read_text()
    pipe = sf.load(tmp_path / "bundle")
    result = pipe.generate("a fox walks to the left in snow", seed=0, frames=17)
    assert result.clips[0].shape == (17, 64, 64, 3) and not result.warnings
    assert pipe.generate("a fox in snow", seed=0).images[0].size == (64, 64)
    again = (tmp_path / "log.txt").read_text().count(" step ")
    make(tmp_path, toy(), STAGES[:5])
    assert (tmp_path / "log.txt").read_text().count(" step ") == again


def test_a_resumed_flow_is_the_uninterrupted_one(tmp_path):
    from recipes.clip_model.settings import toy
    from recipes.clip_model.train import ClipTrainer
    from recipes.default_model.train import train_flow

    rng = np.random.default_rng(0)
    latents = rng.standard_normal((40, 7, 4, 4, 4)).astype(np.float16)
    tokens = rng.integers(4, 40, (40, 2, 16)).astype(np.uint16)
    recipe, states = toy(), []
    for name, stops in (("whole", [None]), ("parts", [4, 7, None])):
        for stop in stops:
            data = (latents, tokens), (latents[:16], tokens[:16])
            flow = replace(recipe.flow, save_seconds=1e9)
            train_flow(
                tmp_path / name, *data, 120, flow, recipe.text, stop_after=stop, kind=ClipTrainer
            )
        states.append(torch.load(tmp_path / name / "state.pt"))
    whole, parts = states
    assert whole["step"] == parts["step"] == 12
    for a, b in zip(whole["average"], parts["average"], strict=True):
        assert torch.equal(a, b)


def test_a_resumed_autoencoder_is_the_uninterrupted_one(tmp_path):
    from recipes.clip_model.settings import toy
    from recipes.clip_model.vae import fit_autoencoder

    settings = toy().vae
    clips = np.random.default_rng(0).integers(0, 256, (6, 9, 32, 32, 3)).astype(np.uint8)
    states = []
    for name, stops in (("whole", [None]), ("parts", [1, 3, None])):
        for stop in stops:
            fit_autoencoder(tmp_path / name, clips, clips[:2], settings, stop_after=stop)
        states.append(torch.load(tmp_path / name / "round-1" / "state.pt")["model"])
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_pictures_leave_the_weights_between_frames_as_they_are(tmp_path):
    from recipes.clip_model.settings import toy
    from recipes.clip_model.vae import fit_autoencoder

    clips = np.random.default_rng(0).integers(0, 256, (6, 9, 32, 32, 3)).astype(np.uint8)
    states = []
    for stop in (4, 6):  # the second round begins with two steps on pictures
        fit_autoencoder(tmp_path, clips, clips[:2], toy().vae, stop_after=stop)
        state = torch.load(tmp_path / f"round-{stop // 6}" / "state.pt")["model"]
        states.append({name: value for name, value in state.items() if value.ndim == 5})
    for name, before in states[0].items():
        after = states[1][name]
        if before.shape[2] == 3:
            early = slice(None) if "time_conv" in name else slice(2)
            assert torch.equal(before[:, :, early], after[:, :, early]), name
    moved = "decoder.mid_block.resnets.0.conv1.weight"
    assert not torch.equal(states[0][moved], states[1][moved])


def test_the_captions_of_single_frames_and_of_mirrored_clips():
    from recipes.clip_model.captions import LEXICON
    from recipes.clip_model.data import swap_sides, told
    from recipes.clip_model.train import as_stills, null_clip
    from recipes.default_model.text import null_ids, tokenize
    from recipes.default_model.tokenizer import build_tokenizer

    tokenizer = build_tokenizer([], LEXICON)

    def ids(*captions):
        return tokenize(tokenizer, list(captions), 16)

    clips = ids(told("a fox walks to the left in snow", 8), told("night into day, a cat", 8))
    assert torch.equal(as_stills(clips), ids("a fox in snow", "night, a cat"))
    mirror = ids(told("a fox walks to the right in snow", 8), told("night into day, a cat", 8))
    assert np.array_equal(swap_sides(clips.numpy()), mirror.numpy())
    assert torch.equal(null_clip(16), ids(told("", 8)))
    assert torch.equal(as_stills(null_clip(16)), null_ids(16))


def test_the_loss_of_a_whole_clip_is_its_likelihood_and_a_known_frame_has_none():
    from recipes.clip_model.settings import toy
    from recipes.clip_model.train import nats_by_frame
    from recipes.default_model.flow import STARFlow
    from recipes.default_model.train import nats_per_dimension

    torch.manual_seed(0)
    shape = toy().flow.shape
    flow = STARFlow(shape)
    with torch.no_grad():
        for block in flow.blocks:
            block.proj_out.weight.normal_(0, 0.1)
    text = torch.randn(3, shape.text_size, shape.text_width)
    x = torch.randn(3, 5, shape.channel_size, 4, 4)
    with torch.no_grad():
        z, logdets = flow(x, text)
        other = x.clone()
        other[:, 4] += 1
        changed = nats_by_frame(*flow(other, text), 5)
    frames = nats_by_frame(z, logdets, 5)
    torch.testing.assert_close(frames.mean(1), nats_per_dimension(z, logdets))
    torch.testing.assert_close(changed[:, :4], frames[:, :4])
    assert not torch.allclose(changed[:, 4], frames[:, 4])


def test_the_judge_sees_mirrored_motions():
    from recipes.clip_model.judge import _augment
    from recipes.clip_model.scenes import MOTIONS

    x = torch.rand(64, 2, 3, 64, 64)
    before = torch.arange(64) % len(MOTIONS)
    _, after = _augment(x, before, torch.Generator().manual_seed(0))
    names = {(MOTIONS[a], MOTIONS[b]) for a, b in zip(before, after, strict=True)}
    assert {("left", "right"), ("left", "left"), ("jump", "jump")} <= names
    assert not {("left", "jump"), ("nearer", "away")} & names
