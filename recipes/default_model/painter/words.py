"""The meaning of words: rules that replace synonyms, plurals and opening phrases by a few tokens.

The tokenizer has the same rules, so that all phrasings of a prompt with the same meaning reach the
model as the same tokens. ``understood`` applies the rules in Python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from .scene import COLOURS, SUBJECTS, TIMES, WEATHERS

PLURAL = "+"  # follows a noun in the plural; punctuation in a prompt cannot become this token
UNKNOWN = "?"  # stands for one or more unknown words in a row

# Token → phrases with the same meaning. Articles have been removed before, and phrases are replaced
# before single words.
_PHRASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("rocket", ("space rocket", "space ship", "rocket ship")),
    ("balloon", ("hot air balloon",)),
    ("train", ("steam train", "steam locomotive")),
    ("boat", ("sailing boat", "sail boat", "sailing ship")),
    ("white bear", ("polar bear",)),
    ("bear", ("teddy bear",)),
    ("duck", ("rubber duck",)),
    (
        "nightsky",
        ("night sky", "starry sky", "starry night", "sky at night", "sky by night", "outer space",
         "under stars", "among stars", "between stars", "in stars"),
    ),
    ("snowfall", ("falling snow", "snow falling", "snow is falling")),
    ("sky", ("in clouds", "among clouds", "above clouds", "over clouds", "on cloud", "on clouds")),
    ("sky cloudy", ("in cloudy sky",)),
    ("sky", ("in blue sky", "in clear sky")),
    ("cloudy", ("cloudy sky", "cloudy skies", "grey sky", "cloudy weather", "cloudy day")),
    ("clear", ("clear sky", "clear skies", "blue sky", "clear weather", "clear day")),
    ("rain", ("rainy day", "rainy weather")),
    ("fog", ("foggy day", "foggy weather")),
    ("forest", ("in wood",)),
    ("forest snowfall", ("snowy forest", "snowy woods", "winter forest")),
    ("city snowfall", ("snowy city", "snowy town", "snowy street")),
    ("mountains", ("snowy mountains", "snowy mountain")),
    ("meadow", ("field of flowers", "green field", "green grass")),
    ("desert", ("sand dunes", "sand dune")),
    ("dawn", ("early morning",)),
)  # fmt: skip
_WORDS: dict[str, tuple[str, ...]] = {
    # subjects
    "cat": ("kitten", "kitty"),
    "dog": ("puppy", "doggy", "pup", "hound"),
    "rabbit": ("bunny", "hare"),
    "bear": ("teddy",),
    "horse": ("pony", "foal"),
    "cow": ("calf",),
    "pig": ("piglet", "piggy"),
    "sheep": ("lamb",),
    "duck": ("duckling",),
    "bird": ("birdie", "songbird"),
    "fish": ("goldfish",),
    "tree": ("oak",),
    "flower": ("blossom", "bloom"),
    "mushroom": ("toadstool",),
    "child": ("kid", "person"),
    "house": ("cottage", "cabin", "hut", "home"),
    "castle": ("palace", "fortress"),
    "boat": ("sailboat", "ship", "yacht"),
    "car": ("automobile", "auto"),
    "train": ("locomotive",),
    "bicycle": ("bike",),
    "rocket": ("spaceship", "spacecraft"),
    # places
    "snow": ("snowy", "winter", "wintry"),
    "forest": ("forests", "woods", "woodland", "woodlands"),
    "desert": ("dune", "dunes", "deserts"),
    "beach": ("shore", "seashore", "seaside", "coast", "sand", "beaches"),
    "meadow": ("meadows", "field", "fields", "grass", "lawn", "pasture", "grassland"),
    "mountains": ("mountain", "peaks", "alps"),
    "city": ("town", "cities", "street", "streets", "downtown", "skyscrapers"),
    "sea": ("ocean", "water", "seas", "waves"),
    "sky": ("skies",),
    "nightsky": ("starry", "space"),
    # time and weather
    "day": ("daytime", "daylight", "midday", "noon", "afternoon"),
    "dawn": ("sunrise", "morning", "daybreak"),
    "sunset": ("evening", "dusk", "twilight", "sundown"),
    "night": ("nighttime", "midnight", "moonlight", "moonlit"),
    "clear": ("sunny", "sunshine", "sunlight"),
    "cloudy": ("cloud", "clouds", "overcast"),
    "rain": ("rainy", "raining", "rainfall", "drizzle"),
    "snowfall": ("snowing", "snowflakes", "snowstorm", "blizzard"),
    "fog": ("foggy", "mist", "misty", "haze", "hazy"),
    # colour, size, number
    "red": ("scarlet", "crimson"),
    "orange": ("ginger",),
    "yellow": ("golden", "gold"),
    "blue": ("azure",),
    "purple": ("violet",),
    "grey": ("gray", "silver"),
    "small": ("little", "tiny", "mini", "baby"),
    "big": ("large", "huge", "giant", "enormous", "gigantic", "great"),
    "two": ("2", "couple", "pair"),
    "three": ("3", "trio"),
}
_PLURALS = {
    "snowman": "snowmen", "child": "children", "person": "people", "calf": "calves",
    "fish": "fish", "goldfish": "goldfish", "sheep": "sheep", "home": "homes",
}  # fmt: skip
_ARTICLES = ("a", "an", "the")
# Words that are removed: polite words, words for any picture, and words without importance.
_UNTOLD = (
    "please", "draw", "paint", "make", "create", "generate", "show", "give", "render", "imagine",
    "can", "could", "would", "you", "i", "me", "us", "want", "my", "your", "see", "let", "lets",
    "picture", "pictures", "painting", "image", "photo", "photograph", "drawing", "illustration",
    "scene", "artwork", "art", "sketch", "portrait", "view", "pic", "cartoon", "landscape",
    "there", "here", "this", "that", "these", "those", "it", "its", "is", "are", "which",
    "of", "in", "on", "at", "by", "with", "over", "under", "above", "upon", "near", "beside",
    "behind", "among", "between", "through", "into", "inside", "front", "middle", "during", "while",
    "weather", "time", "place", "standing", "sitting", "one", "1", "single", "some", "several",
    "few", "very", "cute", "lovely", "beautiful", "pretty", "nice", "sweet", "adorable",
    "medium", "sized", "coloured", "colored",
)  # fmt: skip

_TOLD = (
    *SUBJECTS, "child", "two", "three", "small", "big", *COLOURS,
    "snow", "forest", "desert", "beach", "meadow", "mountains", "city", "sea", "sky", "nightsky",
    *TIMES, *WEATHERS,
)  # fmt: skip
TOKENS = (*dict.fromkeys(_TOLD), PLURAL)  # every token that captions consist of, in a fixed order


def plural(noun: str) -> str:
    """The plural of a noun that names a subject."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("x", "s", "sh", "ch")) else "s")


def names(subject: str) -> tuple[str, ...]:
    """The subject's name and its synonyms of one word."""
    return (subject, *_WORDS.get(subject, ()))


Meanings = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Lexicon:
    """The words that a model knows. The default: those of pictures; the fields add to them.

    ``meanings``: token → phrases and words, replaced before those of pictures.
    """

    told: tuple[str, ...] = ()
    meanings: Meanings = ()
    untold: tuple[str, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Every token that captions consist of, in a fixed order."""
        return (*TOKENS, *self.told)


PICTURES = Lexicon()


def _meanings(lexicon: Lexicon) -> list[tuple[str, tuple[str, ...]]]:
    """(token, phrases or words with this meaning), phrases first, with plurals of subjects."""
    table = list(lexicon.meanings)
    for token, phrases in _PHRASES:
        if token.split()[-1] in SUBJECTS:
            table.append((f"{token} {PLURAL}", tuple(map(plural, phrases))))
        table.append((token, phrases))
    nouns = (*SUBJECTS, "child")
    for noun in nouns:
        many = tuple(plural(name) for name in names(noun) if plural(name) != name)
        if many:
            table.append((f"{noun} {PLURAL}", many))
    table += _WORDS.items()
    return table


@lru_cache(maxsize=4)
def rules(lexicon: Lexicon = PICTURES) -> tuple[tuple[str, str], ...]:
    """(pattern, replacement) pairs, to be applied in this order to a prompt in lower case.

    The patterns match the same text in Python's ``re`` and in the tokenizers library.
    """

    def any_of(phrases: tuple[str, ...]) -> str:
        return rf"\b(?:{'|'.join(sorted(phrases, key=len, reverse=True))})\b"

    # Punctuation separates phrases ("a flower, grey, sky" has no grey sky), hyphens do not.
    found = [(r"[-_\u2010\u2011]+", " "), (r"[^\w\s]+", " ; ")]
    found += [(any_of(_ARTICLES), " "), (r"\s+", " ")]
    found += [(any_of(phrases), token) for token, phrases in _meanings(lexicon)]
    found.append((any_of((*_UNTOLD, *lexicon.untold)), " "))
    told = "|".join(re.escape(token) for token in lexicon.tokens)
    found.append((rf"(?:\b(?!(?:{told})\b)\w+[\s;]*)+", f" {UNKNOWN} "))
    return (*found, (";", " "))


def understood(text: str, lexicon: Lexicon = PICTURES) -> list[str]:
    """The tokens of a prompt, with UNKNOWN for unknown words."""
    text = text.lower()
    for pattern, token in rules(lexicon):
        text = re.sub(pattern, token, text)
    return text.split()


def known_words(lexicon: Lexicon = PICTURES) -> list[str]:
    """Every known word, sorted, numbers as digits included."""
    phrases = [*_ARTICLES, *_UNTOLD, *lexicon.untold, *lexicon.tokens]
    phrases += [phrase for _, options in _meanings(lexicon) for phrase in options]
    return sorted({word for phrase in phrases for word in phrase.split()} - {PLURAL, "nightsky"})
