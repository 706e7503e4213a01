"""Editing: masks of tokens, the effect of the token order, restored pixels, the likelihood."""

import dataclasses

import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES
from PIL import Image

import mlx_starflow as sf
from mlx_starflow.editing.edit import EditRequest, edit, pasted, token_mask, visibility
from mlx_starflow.errors import UsageError

SIDE = 12


def box(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[rows, columns] = True
    return mask


def noise_picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def test_a_mask_is_rounded_outwards_to_tokens():
    tokens = token_mask(box(slice(3, 5), slice(0, 1)), 4)
    assert np.argwhere(tokens).tolist() == [[0, 0], [1, 0]]
    with pytest.raises(UsageError, match="empty"):
        token_mask(np.zeros((SIDE, SIDE), bool), 4)


def test_what_the_order_sees():
    config = FAMILIES["released"]
    tokens = np.zeros((3, 3), bool)
    tokens[0, 2] = tokens[1, 0] = True
    seen = visibility(config, tokens)
    assert (seen.from_the_top, seen.kept, seen.seen_by_all, seen.seen_by_none) == (True, 7, 2, 5)
    deep = dataclasses.replace(config.blocks[-1], flip=True)
    turned = dataclasses.replace(config, blocks=(*config.blocks[:-1], deep))
    seen = visibility(turned, tokens)
    assert (seen.from_the_top, seen.seen_by_all, seen.seen_by_none) == (False, 5, 2)


def test_new_paint_fades_in_inside_the_mask_alone():
    below, above = Image.new("RGB", (32, 32), "black"), Image.new("RGB", (32, 32), "white")
    mask = np.zeros((32, 32), bool)
    mask[:16] = True
    mixed = np.asarray(pasted(below, above, mask)).astype(int)
    assert (mixed[16:] == 0).all() and (mixed[:8] == 255).all()
    assert (np.diff(mixed[8:17, 5, 0]) <= 0).all() and 0 < mixed[14, 5, 0] < 255
    assert (mixed[0] == 255).all()  # no fading at the rim of the picture


def test_likelihoods_of_edits_are_those_of_their_latents(colours):
    with sf.load(colours) as pipe:
        mask = box(slice(0, 6), slice(0, 12))
        made = edit(pipe, EditRequest(noise_picture(), mask, "red", (0, 1, 2), 1.5))
        context = mx.repeat(pipe.encode_prompts(["red"]), 3, axis=0)
        expected = sf.log_prob(pipe.flow, made.latents, context)
        assert made.log_p == pytest.approx(np.array(expected), abs=1e-2)
        assert made.best == int(mx.argmax(expected).item())
        kept = np.array(made.latents[:, 6:])
        assert np.array_equal(kept[0], kept[1]) and np.array_equal(kept[0], kept[2])


def test_without_pasting_the_models_own_picture_is_given(colours):
    with sf.load(colours) as pipe:
        mask = box(slice(0, 6), slice(0, 12))
        request = EditRequest(noise_picture(), mask, "red", (0,), 0.0, denoise=False, paste=False)
        noisy = np.asarray(edit(pipe, request).images[0]).astype(int)
        request = dataclasses.replace(request, denoise=True)
        clean = np.asarray(edit(pipe, request).images[0]).astype(int)
    before = np.asarray(noise_picture()).astype(int)
    assert np.abs(noisy[6:] - before[6:]).mean() > 5  # kept pixels with the training noise
    assert np.abs(clean[6:] - before[6:]).max() <= 1  # and put back without it


def test_the_same_seed_gives_the_same_edit_alone_and_beside_others(colours):
    with sf.load(colours) as pipe:
        request = EditRequest(noise_picture(), box(slice(2, 8), slice(2, 8)), "red", (3,), 1.5)
        [alone] = edit(pipe, request).images
        beside = edit(pipe, dataclasses.replace(request, seeds=(9, 3))).images[1]
    assert np.abs(np.asarray(alone).astype(int) - np.asarray(beside).astype(int)).max() <= 1
