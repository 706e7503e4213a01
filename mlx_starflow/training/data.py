"""Read pictures with captions from a folder, and report the pictures that cannot be used.

Three layouts are accepted: a NAME.txt beside every picture; a train.jsonl with lines of
{"image": ..., "prompt": ...}; or a folder of pictures and one prompt for all of them. A picture
that this program drew has its prompt in it and needs no NAME.txt. The held-out pictures are those
in valid/ or valid.jsonl; without these, a tenth is selected at random by the seed.
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
from ..pictures.metadata import settings_in
from ..pictures.opening import opened
from ..pictures.read import Picture, fitted, open_picture, pictures_in

CAPTION_BYTES = 1 << 20
LINES_BYTES = 256 << 20
SMALLEST = 0.5  # share of the model's side; smaller pictures would be blurred by the scaling
TOLD = 3  # most file names in a note


@dataclass(frozen=True)
class Example:
    """A picture and its captions."""

    path: Path
    prompts: tuple[str, ...]
    digest: str = ""  # SHA-256 of its pixels at the model's size
    drawn: bool = False  # by this program, and its prompt is its caption


def read_examples(folder: Path, prompt: str | None) -> tuple[list[Example], list[Example], Notes]:
    """The training and held-out pictures of a folder with their captions, and notes. The held-out
    list is empty if the folder has no valid/ and no valid.jsonl. Picture files are not opened yet.

    Errors: UsageError if the folder or every caption is missing, StarflowError for a malformed line
    of a .jsonl file.
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
    """Collects notes about pictures; pictures with the same problem share one sentence."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, what: str, name: str) -> None:
        self._found.setdefault(what, []).append(name)

    def sentences(self) -> tuple[str, ...]:
        return tuple(f"{what}: {_listed(names)}." for what, names in self._found.items())


def prepared(
    example: Example, size: tuple[int, int], fit: str, notes: Notes
) -> tuple[Example, Picture] | None:
    """The example with its digest, and its picture at the model's ``size`` (width, height) in
    pixels; None, with a note, if the picture cannot be used.

    ``fit`` for pictures of another size: "crop" or "stretch", or "refuse" to leave them out.
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
    """Merge pictures with exactly the same pixels into one example with all of their captions."""
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
    """Training and held-out pictures. A picture that is in both lists is held out only. Without
    held-out pictures, ``seed`` selects a tenth of ``train``. Errors: UsageError if no picture is
    left to train on."""
    if valid:
        held = {example.digest for example in valid}
        both = [e for e in train if e.digest in held]
        for example in both:
            notes.add("In both parts, therefore only held out", example.path.name)
        train = [e for e in train if e.digest not in held]
    elif len(train) > 1:
        order = np.random.default_rng([seed, 2]).permutation(len(train))
        count = max(1, round(len(train) / 10))
        chosen = {int(i) for i in order[:count]}
        valid = [e for i, e in enumerate(train) if i in chosen]
        train = [e for i, e in enumerate(train) if i not in chosen]
    else:
        notes.add(
            "There is only one picture, so none is held out: training does not stop early and the "
            "arrays of its last step are kept",
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
        caption, drawn = _caption(path, notes)
        if caption is None and prompt is None:
            notes.add("Left out, because they have no caption (NAME.txt)", path.name)
            continue
        used = caption if caption is not None else prompt or ""
        found.append(Example(path, (used,), drawn=drawn))
    if not found:
        raise UsageError(
            f"{folder}: none of {len(paths)} pictures has a caption file (NAME.txt), and there is "
            "no train.jsonl. Give one caption for all pictures with --prompt."
        )
    return found


def _caption(picture: Path, notes: Notes) -> tuple[str | None, bool]:
    """The caption of a picture, and whether it is the prompt that the picture was drawn from."""
    try:
        text = read_regular(picture.with_suffix(".txt"), CAPTION_BYTES).decode("utf-8").strip()
    except FileNotFoundError:
        prompt = _stored_prompt(picture)
        return prompt, prompt is not None
    except (OSError, UnicodeDecodeError):
        notes.add("Caption ignored, because it is not UTF-8 text", f"{picture.stem}.txt")
        return None, False
    if not text:
        notes.add("Empty caption, used as an empty prompt", f"{picture.stem}.txt")
    return " ".join(text.split()), False


def _stored_prompt(picture: Path) -> str | None:
    """The prompt in the settings of a picture that this program drew."""
    try:
        with opened(picture) as image:
            prompt = (settings_in(image) or {}).get("prompt")
    except ImageError:
        return None
    return " ".join(prompt.split()) if isinstance(prompt, str) else None


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
            raise StarflowError(f"{where}: {shown(str(path), 200)} is outside {folder}.")
        found.append(Example(path, (fields.text("prompt", prompt or "", most=100_000),)))
    if not found:
        raise StarflowError(f"{lines} is empty; write one JSON object per line.")
    return found


def _reason(error: ImageError, path: Path) -> str:
    """The message of an error without the file's name and the final full stop."""
    return " ".join(str(error).removeprefix(str(path)).split()).strip(" :.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(names[:TOLD]) + more
