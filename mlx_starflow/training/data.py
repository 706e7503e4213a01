"""Pictures with captions from a folder: what is usable, and a sentence for what is not.

Three layouts: NAME.txt beside every picture; train.jsonl of {"image": ..., "prompt": ...}; or a
folder of pictures and one prompt for all. Held out is what valid/ or valid.jsonl holds, else a
tenth, drawn by the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import ImageError, StarflowError, UsageError
from ..files.fields import Fields, shown
from ..files.json import JSONError, parse_object
from ..files.regular import inside, read_regular
from ..pictures.read import Picture, fitted, open_picture, pictures_in

CAPTION_BYTES = 1 << 20
LINES_BYTES = 256 << 20
SMALLEST = 0.5  # of the model's side: smaller pictures would be mostly invented
TOLD = 3  # names in a sentence


@dataclass(frozen=True)
class Example:
    """A picture and what it shows, in one or several wordings."""

    path: Path
    prompts: tuple[str, ...]
    digest: str = ""  # of its pixels at the model's size


@dataclass(frozen=True)
class Examples:
    """What a training has, and what was found on the way."""

    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    notes: tuple[str, ...]  # sentences for people


def read_examples(folder: Path, prompt: str | None) -> tuple[list[Example], list[Example], Notes]:
    """Pictures and captions of a folder and of what it holds out itself, files not yet opened.

    Errors: UsageError where the folder or every caption is missing, StarflowError for a line of a
    .jsonl file that is malformed.
    """
    notes = Notes()
    if not folder.is_dir():
        raise UsageError(f"--data {folder}: there is no such folder.")
    train = _part(folder, folder / "train.jsonl", prompt, notes)
    valid: list[Example] = []
    if (folder / "valid.jsonl").is_file() or (folder / "valid").is_dir():
        lines = folder / "valid.jsonl"
        valid = _part(folder if lines.is_file() else folder / "valid", lines, prompt, notes)
    return train, valid, notes


class Notes:
    """Sentences about pictures, one for each kind of trouble."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, what: str, name: str) -> None:
        self._found.setdefault(what, []).append(name)

    def sentences(self) -> tuple[str, ...]:
        return tuple(f"{what}: {_listed(names)}." for what, names in self._found.items())


def prepared(
    example: Example, size: tuple[int, int], fit: str, notes: Notes
) -> tuple[Example, Picture] | None:
    """The picture at the model's size with its digest; None, and a note, where it cannot be used.

    ``fit``: "crop" or "stretch" for other sizes, "refuse" to leave them out.
    """
    name = example.path.name
    try:
        picture = open_picture(example.path)
        width, height = picture.image.size
        if min(width / size[0], height / size[1]) < SMALLEST:
            notes.add(f"Left out, smaller than half of {size[0]}x{size[1]}", name)
            return None
        if width < size[0] or height < size[1]:
            notes.add(f"Scaled up to {size[0]}x{size[1]}", name)
        picture = fitted(picture, [size], fit)
    except ImageError as error:
        notes.add(f"Left out ({_reason(error, example.path)})", name)
        return None
    pixels = np.asarray(picture.image).tobytes()
    return replace(example, digest=hashlib.sha256(pixels).hexdigest()), picture


def without_duplicates(examples: Sequence[Example], notes: Notes) -> list[Example]:
    """Pictures that are the same to the pixel become one with all of their captions."""
    found: dict[str, Example] = {}
    for example in examples:
        first = found.get(example.digest)
        if first is None:
            found[example.digest] = example
            continue
        new = tuple(p for p in example.prompts if p not in first.prompts)
        found[example.digest] = replace(first, prompts=first.prompts + new)
        said = "counted once, with all captions" if new else "counted once"
        if example.path != first.path:
            notes.add(f"The same picture twice ({said})", f"{first.path.name}, {example.path.name}")
    return list(found.values())


def split(
    train: list[Example], valid: list[Example], seed: int, notes: Notes
) -> tuple[list[Example], list[Example]]:
    """Training and held-out pictures. A picture that is in both is only held out. Errors:
    UsageError where nothing is left to train on."""
    if valid:
        held = {example.digest for example in valid}
        both = [e for e in train if e.digest in held]
        for example in both:
            notes.add("In both parts, so held out only", example.path.name)
        train = [e for e in train if e.digest not in held]
    elif len(train) > 1:
        order = np.random.default_rng([seed, 2]).permutation(len(train))
        count = max(1, round(len(train) / 10))
        chosen = {int(i) for i in order[:count]}
        valid = [e for i, e in enumerate(train) if i in chosen]
        train = [e for i, e in enumerate(train) if i not in chosen]
    else:
        notes.add(
            "Nothing can be held out of one picture, so training does not stop by itself and its "
            "last state is kept",
            train[0].path.name if train else "none",
        )
    if not train:
        raise UsageError("No picture is left to train on. " + " ".join(notes.sentences()))
    return train, valid


def _part(folder: Path, lines: Path, prompt: str | None, notes: Notes) -> list[Example]:
    if lines.is_file():
        return _from_lines(folder, lines, prompt)
    try:
        paths = pictures_in([folder])
    except ImageError as error:
        raise UsageError(str(error)) from None
    found = []
    for path in paths:
        caption = _caption(path, notes)
        if caption is None and prompt is None:
            notes.add("Left out, without a caption beside it (NAME.txt)", path.name)
            continue
        found.append(Example(path, (caption if caption is not None else prompt or "",)))
    if not found:
        raise UsageError(
            f"{folder}: none of {len(paths)} pictures has a caption beside it (NAME.txt), and "
            "there is no train.jsonl. Give one for all with --prompt."
        )
    return found


def _caption(picture: Path, notes: Notes) -> str | None:
    try:
        text = read_regular(picture.with_suffix(".txt"), CAPTION_BYTES).decode("utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        notes.add("A caption that cannot be read as UTF-8 text", f"{picture.stem}.txt")
        return None
    if not text:
        notes.add("An empty caption, used as no caption", f"{picture.stem}.txt")
    return " ".join(text.split())


def _from_lines(folder: Path, lines: Path, prompt: str | None) -> list[Example]:
    try:
        text = read_regular(lines, LINES_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StarflowError(f"{lines} cannot be read ({error}).") from None
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{lines}, line {number}"
        try:
            fields = Fields(parse_object(line), where, StarflowError)
        except JSONError as error:
            raise StarflowError(f"{where}: this is not JSON ({error}).") from None
        path = folder / fields.text("image", most=4096)
        if not inside(path, folder):
            raise StarflowError(f"{where}: {shown(str(path), 200)} is outside of {folder}.")
        found.append(Example(path, (fields.text("prompt", prompt or "", most=100_000),)))
    if not found:
        raise StarflowError(f"{lines} is empty; write one object a line.")
    return found


def _reason(error: ImageError, path: Path) -> str:
    """An error's sentence without the file's name and its last stop."""
    return " ".join(str(error).removeprefix(str(path)).split()).strip(" :.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(names[:TOLD]) + more
