"""The word tokenizer of the embedded model, which maps every phrasing to a few tokens."""

from __future__ import annotations

from .painter.words import PICTURES, Lexicon, known_words, rules

PAD, EOS, BOS, UNKNOWN = "<pad>", "<eos>", "<bos>", "<unk>"
PAD_ID, EOS_ID, BOS_ID, UNKNOWN_ID = range(4)


def build_core(lexicon: Lexicon = PICTURES):
    """The ``tokenizers.Tokenizer``; it starts with <bos> and uses <unk> for unknown words.

    It changes text to lower case, removes punctuation, articles and openings ("a picture of") and
    replaces synonyms and plurals, with the rules of ``painter.words``.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    listed = [PAD, EOS, BOS, UNKNOWN, *lexicon.tokens]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(listed)}, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase()]
        + [normalizers.Replace(Regex(pattern), token) for pattern, token in rules(lexicon)]
    )
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return core


def build_tokenizer(words: list[str], lexicon: Lexicon = PICTURES):
    """``build_core`` in the form that transformers saves and loads.

    ``words``: words that must be known. Errors: ValueError for one that has no rule.
    """
    from transformers import PreTrainedTokenizerFast

    unheard = set(words) - set(known_words(lexicon))
    if unheard:
        raise ValueError(f"painter/words.py has no rule for {sorted(unheard)}")
    return PreTrainedTokenizerFast(
        tokenizer_object=build_core(lexicon),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="right",
        model_max_length=512,
    )
