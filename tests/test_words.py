"""The embedded model's words: phrasings with the same meaning give the same tokens."""

from __future__ import annotations

import numpy as np
import pytest

from mlx_starflow.bundle.vocabulary import Vocabulary
from mlx_starflow.text.tokenizer import PromptTokenizer
from recipes.default_model.painter import SUBJECTS, caption, random_scene, understood, vocabulary
from recipes.default_model.painter.words import PLURAL, TOKENS, names, plural
from recipes.default_model.tokenizer import BOS_ID, UNKNOWN_ID, build_core


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> PromptTokenizer:
    """As the library reads it from a bundle."""
    folder = tmp_path_factory.mktemp("text_encoder")
    build_core().save(str(folder / "tokenizer.json"))
    return PromptTokenizer(folder)


def ids(tokenizer: PromptTokenizer, text: str) -> tuple[int, ...]:
    return tokenizer.encode(text, 16).ids


@pytest.mark.parametrize(
    ("plain", "others"),
    [
        ("a fox in snow", ("A fox in the snow.", "fox, snow", "the fox on snow!", "fox snow")),
        ("a dog", ("a puppy", "the doggy", "one dog", "a cute dog", "draw me a dog, please")),
        ("two cats", ("2 kittens", "a pair of kitties", "a couple of cats", "TWO CATS")),
        ("rabbits", ("bunnies", "some hares", "a picture of rabbits")),
        (
            "a boat on the sea",
            ("a ship in the ocean", "a sailboat on water", "a sailing boat at sea"),
        ),
        ("a bear in a forest", ("a teddy bear in the woods", "a bear in the woodland")),
        (
            "a grey horse at night",
            ("a gray pony at midnight", "Can you paint me a grey horse by night?"),
        ),
        ("a star in the night sky", ("a star in a starry sky", "a star in space")),
        ("a balloon in the sky", ("a hot-air balloon above the clouds", "hot air balloon, sky")),
        ("three snowmen", ("3 snowmen", "an image of three snowmen", "a photo of 3 snowmen")),
        ("a child on the beach", ("a kid at the seaside", "a person on the shore")),
        ("children", ("kids", "people")),
        ("a white bear in snow", ("a polar bear in winter",)),
        ("two white bears", ("two polar bears",)),
        ("trains in a forest", ("steam trains in the woods",)),
        ("a small red mushroom", ("a tiny scarlet toadstool", "a little red mushroom")),
        ("a house in snowfall", ("a cottage in falling snow", "a house with snow falling")),
        ("a fox under clouds", ("a fox under a cloudy sky", "a fox, overcast")),
    ],
)
def test_phrasings_of_one_wish(tokenizer, plain, others):
    expected = ids(tokenizer, plain)
    assert UNKNOWN_ID not in expected and len(expected) > 1
    for text in others:
        assert ids(tokenizer, text) == expected, (text, understood(text), understood(plain))


def test_different_wishes_stay_different(tokenizer):
    texts = [*SUBJECTS, *map(plural, SUBJECTS)]
    texts += ["fox at night", "fox in the night sky", "fox in the sky", "fox under a clear sky"]
    texts += [
        "fox, grey, sky",
        "fox under a grey sky",
        "fox in snow",
        "fox in falling snow",
        "two foxes",
        "three foxes",
        "small fox",
    ]
    found = {ids(tokenizer, text) for text in texts}
    # fish and sheep are their own plurals
    assert len(found) == len(texts) - 2


def test_plurals_are_the_noun_and_one_mark(tokenizer):
    one, many = ids(tokenizer, "castle"), ids(tokenizer, "castles")
    assert many[: len(one)] == one and len(many) == len(one) + 1
    assert plural("butterfly") == "butterflies" and plural("snowman") == "snowmen"
    assert plural("fox") == "foxes" and plural("sheep") == "sheep" and plural("boy") == "boys"
    for subject in SUBJECTS:
        for name in names(subject):
            assert understood(plural(name))[0] == subject


def test_articles_and_lead_ins_alone_are_the_empty_prompt(tokenizer):
    assert ids(tokenizer, "") == (BOS_ID,)
    for text in ("a", "please", "a picture of", "draw me a", "?!"):
        assert ids(tokenizer, text) == (BOS_ID,)


def test_unknown_words_are_unknown_and_named(tokenizer):
    known = Vocabulary(frozenset(vocabulary()["words"]), {})
    prompt = "A zebra juggles 42 foxes on the ocean, please"
    assert known.unknown(prompt) == ["zebra", "juggles", "42"]
    found = ids(tokenizer, prompt)
    # Words in a row that nobody taught are one unknown token, so that they push nothing out.
    assert found == (BOS_ID, UNKNOWN_ID, *ids(tokenizer, "foxes in the sea")[1:])
    several = ids(tokenizer, "an epic, ultra detailed masterpiece of a shiny fox")
    assert several == (BOS_ID, UNKNOWN_ID, ids(tokenizer, "fox")[1])
    # Letters around a known word make another word.
    assert known.unknown("foxtrot snowmobile") == ["foxtrot", "snowmobile"]
    assert ids(tokenizer, "foxtrot snowmobile")[1:] == (UNKNOWN_ID,)


def test_every_known_word_has_a_meaning(tokenizer):
    """Every listed word is known, except words that occur only in phrases."""
    only_in_phrases = {word for word in vocabulary()["words"] if UNKNOWN_ID in ids(tokenizer, word)}
    assert only_in_phrases == {
        "air", "early", "falling", "hot", "outer", "polar", "rubber",
        "sail", "sailing", "steam", "wood",
    }  # fmt: skip


def test_captions_come_to_known_tokens_as_python_says(tokenizer):
    rng = np.random.default_rng(7)
    used = set()
    for _ in range(1500):
        text = caption(random_scene(rng), rng)
        found = ids(tokenizer, text)
        assert found[0] == BOS_ID and UNKNOWN_ID not in found, text
        assert [TOKENS[i - 4] for i in found[1:]] == understood(text), text
        assert len(found) <= 12
        used.update(understood(text))
    assert used == set(TOKENS) and PLURAL in used


def test_training_meets_the_unknown_token():
    torch = pytest.importorskip("torch")
    from recipes.default_model.text import with_unknown

    ids = torch.tensor([[2, 4, 30, 40, 0, 0, 0, 0]] * 4000)
    found = with_unknown(ids, 0.25, torch.Generator().manual_seed(1))
    hit = (found == UNKNOWN_ID).sum(1)
    assert (found[:, 0] == BOS_ID).all() and hit.max() == 1
    assert 0.2 < hit.float().mean() < 0.3
    assert (found[hit == 0] == ids[hit == 0]).all()
    # In front of a token or in its place: the others stay, in order.
    lengths = (found[hit == 1] != 0).sum(1)
    assert set(lengths.tolist()) == {4, 5}
    for row in found[hit == 1]:
        kept = [int(i) for i in row if i not in (0, UNKNOWN_ID)]
        assert kept in ([2, 4, 30, 40], [2, 30, 40], [2, 4, 40], [2, 4, 30])
