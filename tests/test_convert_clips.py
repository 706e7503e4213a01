"""What the converter makes of the published configuration of clips."""

import dataclasses

import pytest

from convert.read.published_yaml import settings_from
from convert.rules.starflow_clips import clip_rules, split_vae, usual_factor
from mlx_starflow.errors import ConfigError
from mlx_starflow.hub import download
from mlx_starflow.hub.known import known_model


def rules(**changes):
    released = dict(known_model("starflow-v").settings)
    return clip_rules(settings_from(released | changes, "video.yaml"))


def test_the_released_model():
    model = known_model("starflow-v")
    assert known_model(model.checkpoint) is model and "research only" in model.licence
    found = rules()
    assert found.frames == 21 and found.local
    assert dataclasses.asdict(found.clips) == {
        "frames": 81, "fps": (16,), "window": 21, "temporal_factor": 4, "temporal_scale": 0.6,
    }  # fmt: skip
    assert usual_factor(split_vae(settings_from(dict(model.settings), "x"))[0]) == 16


def test_keys_of_training_are_passed_over():
    training = {
        "secondary_img_size": 512, "secondary_ratio": 0.2, "drop_image": 0.25, "loss_scaling": 1,
        "last_frame_cond": 0, "video_to_video": 0, "finetuned_vae": "none", "grad_skip": 1,
        "gradient_checkpoint_mlp": 1, "noise_embed_denoiser": 0, "use_mm_attn": 0,
        "vae_decoder_factor": 1, "nvp": 1, "adaln": 0,
    }  # fmt: skip
    assert rules(**training) == rules()
    with pytest.raises(ConfigError, match="'camera_cond'"):
        rules(camera_cond=1)


def test_lengths_rates_and_windows():
    assert rules(vid_size="9:8:16:24").clips.fps == (8, 16, 24)
    assert rules(vid_size="17:16").frames == 5
    assert rules(vid_size="17:16", local_attn_window=3).clips.window == 3
    assert rules(vid_size="none").clips is None and rules(vid_size="none").frames == 1
    assert rules(vae="none", vid_size="17:16").frames == 17  # pixels: a frame is a frame
    assert rules(vae="Wan-AI/Wan2.2-TI2V-5B-Diffusers").clips.temporal_scale == 1.0


def test_what_contradicts_itself_is_refused():
    for changes, message in (
        (dict(temporal_causal=3), "expected 0, 1 or 2"),
        (dict(seq_order="R2L"), "needs seq_order L2R"),
        (dict(cond_top_only=0), "needs cond_top_only"),
        (dict(vid_size="81"), "expected frames:fps"),
        (dict(vid_size="0:16"), "expected frames:fps"),
        (dict(vid_size="81:x"), "expected frames:fps"),
        (dict(vae="a/b:0"), "positive number"),
        (dict(vae="a/b:inf"), "positive number"),
        (dict(vae="a/b:none"), "positive number"),
    ):
        with pytest.raises(ConfigError, match=message):
            rules(**changes)


def test_an_autoencoder_inside_of_a_pipeline(monkeypatch):
    """The repository that the YAML names keeps it in a folder beside other parts."""
    listing = {
        "model_index.json": 1, "vae/config.json": 2,
        "vae/diffusion_pytorch_model.safetensors": 3,
        "transformer/diffusion_pytorch_model-00001-of-00003.safetensors": 4,
    }  # fmt: skip
    monkeypatch.setattr(download, "list_repository", lambda repository: listing)
    files = download.component_files("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "vae")
    assert [(f.name, f.size) for f in files] == [
        ("vae/config.json", 2), ("vae/diffusion_pytorch_model.safetensors", 3),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_measurement_in_full_size_is_tried_in_toy_size(suffix, tmp_path):
    from full_size_clips import SMALL, convert, run

    about = convert(tmp_path / f"a{suffix}", tmp_path / "out", ["--quantize", "4"], SMALL)
    assert about["source_on_disk_gb"] < about["source_gb"] and about["written_gb"] > 0
    found = run(tmp_path / "out", 1, 2, None, SMALL)
    assert found["finite"] and [part["shape"][1] for part in found["decoded"]] == [1, 4]
