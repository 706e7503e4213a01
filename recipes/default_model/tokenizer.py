"""The word tokenizer of the embedded model: any phrasing becomes the painter's few tokens."""

from __future__ import annotations

from .painter.words import TOKENS, known_words, rules

PAD, EOS, BOS, UNKNOWN = "<pad>", "<eos>", "<bos>", "<unk>"
PAD_ID, EOS_ID, BOS_ID, UNKNOWN_ID = range(4)


def build_core():
    """The ``tokenizers.Tokenizer``: <bos> in front, <unk> for words that have no meaning here.

    It lower-cases, drops punctuation, articles and lead-ins ("a picture of") and replaces synonyms
    and plurals, all by the rules of ``painter.words``.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    listed = [PAD, EOS, BOS, UNKNOWN, *TOKENS]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(listed)}, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase()]
        + [normalizers.Replace(Regex(pattern), token) for pattern, token in rules()]
    )
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return core


def build_tokenizer(words: list[str]):
    """``build_core`` as transformers saves and loads it.

    ``words``: those that are promised to be known. Errors: ValueError for one no rule mentions.
    """
    from transformers import PreTrainedTokenizerFast

    unheard = set(words) - set(known_words())
    if unheard:
        raise ValueError(f"no rule of painter/words.py explains {sorted(unheard)}")
    return PreTrainedTokenizerFast(
        tokenizer_object=build_core(),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="right",
        model_max_length=512,
    )
