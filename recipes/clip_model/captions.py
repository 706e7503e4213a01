"""Captions of clips, and the words of motion that the model knows besides those of pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..default_model.painter import caption, vocabulary
from ..default_model.painter.words import Lexicon, known_words, understood
from .scenes import COLOURS, MOTIONS, PLACES, SUBJECTS, Clip

_VERBS: dict[str, tuple[str, ...]] = {
    "car": ("drive", "drive", "roll"),
    "train": ("drive", "ride", "roll"),
    "boat": ("sail", "sail", "float"),
    "duck": ("swim", "swim", "float"),
    "fish": ("swim",),
    "bird": ("fly",),
    "butterfly": ("fly", "flutter"),
    "balloon": ("fly", "float", "drift"),
    "rocket": ("fly", "fly", "shoot"),
}
_WALK = ("walk", "walk", "walk", "run")
_ANY = ("move", "go", "travel")
# {} is a verb of motion. Verbs are written "s/ing": "a fox walks", "a fox walking".
_ACTIONS: dict[str, tuple[str, ...]] = {
    "left": ("{} to the left", "{} to the left", "{} left", "{} from right to left"),
    "right": ("{} to the right", "{} to the right", "{} right", "{} from left to right"),
    "nearer": ("come nearer", "come closer", "approach", "{} towards us", "{} closer"),
    "away": ("go away", "{} away", "{} away", "{} into the distance"),
    "jump": ("jump", "jump", "hop", "leap", "jump up and down"),
    "rise": ("rise", "fly up", "go up", "climb", "take off"),
    "sink": ("sink", "fly down", "go down", "come down", "land"),
    "still": ("stand still", "stand still", "stay", "wait", "rest", "not move"),
}
_LIGHT = {
    "darker": ("day into night", "day turns into night", "night falls", "it gets dark"),
    "lighter": ("night into day", "night turns into day", "day breaks", "it gets light"),
}
_ING = {
    "come": "coming", "go": "going", "hop": "hopping", "rise": "rising", "take": "taking",
    "drive": "driving", "ride": "riding", "swim": "swimming", "run": "running", "move": "moving",
}  # fmt: skip
_S = {"go": "goes", "approach": "approaches", "fly": "flies"}
_DIRECTED = ("left", "right", "nearer", "away")
_RATES = (4, 6, 8, 10, 12, 16, 24, 25, 30)  # frames per second that a prompt may tell
VIDEO = "clip"  # the token for the words that stand before the caption of every clip


def _s(verb: str) -> str:
    return _S.get(verb, verb + "s")


def _ing(verb: str) -> str:
    return _ING.get(verb, verb + "ing")


def _forms(phrase: str) -> tuple[str, ...]:
    """The phrase as it stands after "it" and after "it is", and its base form."""
    if phrase == "not move":
        return "does not move", "not moving", "not move"
    verb, _, rest = phrase.partition(" ")
    return tuple(f"{form} {rest}".strip() for form in (_s(verb), _ing(verb), verb))


def _plain(phrase: str) -> str:
    return phrase.replace("the ", "").replace("it ", "")


def _phrases(motion: str) -> tuple[str, ...]:
    """All phrases that mean the motion, without articles."""
    if motion in _LIGHT:
        return tuple(map(_plain, _LIGHT[motion]))
    found = []
    for action in _ACTIONS[motion]:
        phrase = _plain(action.replace("{}", "").strip())
        found += _forms(phrase) if "{}" not in action else [phrase]
    return tuple(dict.fromkeys(phrase for phrase in found if phrase != motion))


def _lexicon() -> Lexicon:
    verbs = dict.fromkeys([v for own in _VERBS.values() for v in own] + [*_WALK, *_ANY])
    moves = [form for verb in verbs for form in (_s(verb), _ing(verb), verb) if form != "move"]
    more = {
        "left": ("leftwards",),
        "right": ("rightwards",),
        "nearer": ("nearer", "towards viewer", "towards camera", "toward us"),
        "away": ("disappears",),
        "jump": ("bounces", "bouncing"),
        "rise": ("upwards", "lifts off", "up"),
        "sink": ("descends", "downwards", "down"),
        "still": ("motionless", "stands", "sits"),
        "darker": ("day to night", "day becomes night", "nightfall", "gets darker"),
        "lighter": ("night to day", "night becomes day", "gets lighter", "sun rises"),
    }
    order = (
        "darker",
        "lighter",
        "jump",
        "still",
        "left",
        "right",
        "nearer",
        "away",
        "rise",
        "sink",
    )
    meanings = [(VIDEO, tuple(f"video with {rate} fps" for rate in _RATES))]
    for motion in order:
        phrases = tuple(p for p in (*_phrases(motion), *more[motion]) if p != motion)
        meanings.append((motion, phrases))
    meanings.append(("move", (*moves, "passes", "passing", "crosses", "crossing")))
    untold = ("that", "as", "and", "to", "from", "video", "movie", "film", "animation", "fps")
    return Lexicon((VIDEO, "move", *MOTIONS), tuple(meanings), untold)


LEXICON = _lexicon()


def clip_caption(clip: Clip, rng: np.random.Generator) -> str:
    """One caption of the clip, in lower case. It nearly always tells the motion."""
    tells = rng.random() < 0.97
    if clip.motion in _LIGHT:
        phrase = _choose(rng, _LIGHT[clip.motion])
        text = caption(replace(clip.scene, time="day"), rng)
        if not tells:
            return text
        return f"{text}, {phrase}" if rng.random() < 0.7 else f"{phrase}, {text}"
    own = _VERBS.get(clip.scene.subject, _WALK)
    verb = _choose(rng, own if rng.random() < 0.7 else _ANY)
    action = _choose(rng, _ACTIONS[clip.motion])
    if clip.motion in _DIRECTED and rng.random() < 0.03:
        action = "{}"  # moves, in an untold direction
    finite, going, _ = _forms(action.replace("{}", verb))
    said = _choose(rng, (finite, finite, going, f"that {finite}"))
    return caption(clip.scene, rng, said if tells else "")


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def tells_all(text: str, clip: Clip) -> bool:
    """Whether a caption names motion, place, and a colour that is not natural."""
    said = understood(text, LEXICON)
    wanted = [clip.motion, clip.scene.place.replace(" ", ""), clip.scene.colour]
    return all(word in said for word in wanted if word is not None)


def clip_vocabulary() -> dict[str, list[str]]:
    """The names of everything that can be shown, by kind; under ``"words"`` all known words."""
    return {
        **vocabulary(),
        "subjects": list(SUBJECTS),
        "places": list(PLACES),
        "colours": list(COLOURS),
        "motions": list(MOTIONS),
        "words": known_words(LEXICON),
    }
