"""A tiny Gemma-3 text encoder, trained together with the flow, and its token ids."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from .settings import TextSettings
from .tokenizer import BOS_ID, EOS_ID, PAD_ID, UNKNOWN_ID
from .tokenizer import build_tokenizer as build_tokenizer


def tokenize(tokenizer, captions: list[str], length: int) -> Tensor:
    """Token ids (N, length) int64, padded or truncated at the end."""
    held = tokenizer(
        captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    return held["input_ids"]


def with_unknown(ids: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Add <unk> to a ``share`` of the rows of ids, before a random token or in its place.

    So the model learns to follow the other words of a prompt with an unknown word.
    """
    ids = ids.clone()
    for row in torch.nonzero(torch.rand(len(ids), generator=generator) < share).flatten():
        length = int((ids[row] != PAD_ID).sum())
        at = int(torch.randint(1, max(2, length), (), generator=generator))
        if torch.rand((), generator=generator) < 0.5:
            ids[row, at + 1 :] = ids[row, at:-1].clone()
        ids[row, at] = UNKNOWN_ID
    return ids


def build_encoder(settings: TextSettings, vocabulary_size: int):
    """An untrained Gemma-3 causal language model; only its hidden states are used."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=vocabulary_size,
        hidden_size=settings.width,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads // 2,
        head_dim=settings.head_dim,
        query_pre_attn_scalar=settings.head_dim,
        layer_types=["sliding_attention", "full_attention"] * (settings.layers // 2)
        + ["sliding_attention"] * (settings.layers % 2),
        sliding_window=512,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        eos_token_id=EOS_ID,
        bos_token_id=BOS_ID,
        attn_implementation="sdpa",
        use_cache=False,
    )
    # The same information as layer_types, in the form that mlx-lm reads.
    config.sliding_window_pattern = 2
    return Gemma3ForCausalLM(config)


def encode(encoder, ids: Tensor) -> Tensor:
    """Last hidden states (N, L, width) float32, with zeros for padding.

    Attention is causal and the padding is at the end, so the other tokens need no mask.
    """
    hidden = encoder.model(input_ids=ids).last_hidden_state
    return hidden.float() * (ids != PAD_ID)[..., None]


def null_ids(length: int, count: int = 1) -> Tensor:
    """The token ids (count, length) of the null caption ""."""
    ids = torch.full((count, length), PAD_ID)
    ids[:, 0] = BOS_ID
    return ids


def save_encoder(encoder, tokenizer, folder: Path) -> None:
    """Write a transformers directory: config, weights, tokenizer."""
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["sliding_window_pattern"] = 2
    path.write_text(json.dumps(config, indent=2) + "\n")
