"""A word tokenizer and a tiny Gemma-3 text model, trained together with the flow."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from .settings import TextSettings

PAD, EOS, BOS, UNKNOWN = "<pad>", "<eos>", "<bos>", "<unk>"
PAD_ID, EOS_ID, BOS_ID, UNKNOWN_ID = range(4)


def build_tokenizer(words: list[str]):
    """A fast tokenizer over a closed list of words, lower-casing, <bos> in front."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    listed = [PAD, EOS, BOS, UNKNOWN, *words]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(listed)}, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="right",
        model_max_length=512,
    )


def tokenize(tokenizer, captions: list[str], length: int) -> Tensor:
    """Token ids (N, length) int64, padded right and cut at the tail."""
    held = tokenizer(
        captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    return held["input_ids"]


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
    # mlx-lm reads these two forms; the layer types say the same.
    config.sliding_window_pattern = 2
    return Gemma3ForCausalLM(config)


def encode(encoder, ids: Tensor) -> Tensor:
    """Last hidden states (N, L, width) float32, padding zeroed.

    Attention is causal and the padding stands right, so no mask is needed for the real tokens.
    """
    hidden = encoder.model(input_ids=ids).last_hidden_state
    return hidden.float() * (ids != PAD_ID)[..., None]


def null_ids(length: int, count: int = 1) -> Tensor:
    """The tokens of the null caption ""."""
    ids = torch.full((count, length), PAD_ID)
    ids[:, 0] = BOS_ID
    return ids


def save_encoder(encoder, tokenizer, folder: Path) -> None:
    """An ordinary transformers directory: config, weights, tokenizer."""
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["sliding_window_pattern"] = 2
    path.write_text(json.dumps(config, indent=2) + "\n")
