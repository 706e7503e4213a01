"""``mlx-starflow edit``: redraw a part of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ..editing.edit import Edited, EditRequest, Visibility, edit_steps, visibility
from ..errors import UsageError
from ..files.counted import counted
from ..generation.settings import MAX_PICTURES
from ..pictures.metadata import save_picture
from ..pictures.read import open_mask
from ..pipeline import Pipeline
from ..sampling import BlockResult
from ..version import __version__
from . import options as o
from .arguments import all_seeds
from .box import Box, read_box
from .console import Console
from .failures import NOTHING, interruptible
from .options import HOW, OUTPUT, WHAT, option
from .outputs import DEFAULT, check_output, name
from .picture_options import (
    Fit,
    FitOption,
    Guidance,
    Image,
    open_model,
    take_picture,
)
from .prompts import tell_prompts
from .results import show
from .viewer import show_files

EPILOG = """\b
Examples:
  mlx-starflow edit house.png --mask sky.png --prompt "a house at night"
  mlx-starflow edit house.png --box 0,0,128,40 --prompt "a house at night"
  mlx-starflow edit fox.png --mask fox-mask.png --prompt "a cat in snow" --best-of 8
  mlx-starflow edit fox.png --mask mask.png --prompt "a cat" --seed 1 2 3 --output cats.png

A flow draws a picture in a fixed order: row by row, from the top or from the bottom, depending on
the model. The part outside the mask is kept. Each new token depends on the prompt and on
everything before it in this order, kept or new, but not on the kept part after it, so there may be
a seam on that side. --best-of helps: it draws several pictures and keeps the one with the highest
likelihood of the whole picture, which depends on both sides. The mask is extended to whole tokens;
outside the mask the pixels of the given picture are kept.
"""

Mask = Annotated[
    Path | None,
    option("--mask", panel=WHAT, metavar="FILE", help="A picture of the same size: white "
            "(or transparent) pixels are redrawn."),
]  # fmt: skip
Boxes = Annotated[
    list[Box] | None,
    option("--box", panel=WHAT, metavar="X,Y,WIDTH,HEIGHT", parser=read_box, help="A rectangle to "
            "redraw, in pixels from the top left corner. May be repeated and combined with "
            "--mask."),
]  # fmt: skip
Prompt = Annotated[
    str, option("--prompt", panel=WHAT, help="What the whole finished picture should show.")
]
BestOf = Annotated[
    int | None,
    option("--best-of", panel=HOW, metavar="N", min=2, help="Draw N pictures and keep the most "
            "probable one, by the exact log p(whole picture | prompt)."),
]  # fmt: skip
Paste = Annotated[
    bool,
    option("--paste/--no-paste", panel=OUTPUT, help="Outside the mask, keep the pixels of the "
            "given picture (--paste, the default) or use those of the autoencoder."),
]  # fmt: skip


def edit(
    image: Image,
    mask: Mask = None,
    box: Boxes = None,
    *,
    prompt: Prompt,
    seed: o.Seed = None,
    best_of: BestOf = None,
    guidance: Guidance = None,
    paste: Paste = True,
    fit: FitOption = Fit.refuse,
    output: o.Output = None,
    open_: o.Open = False,
    choice: o.ModelChoice,
    messages: o.Messages,
) -> None:
    """Redraw the masked part of a picture and keep the rest.

    The new part depends only on the kept part before it in the model's order: see the note below.
    """
    console = Console(messages.quiet)
    output = output or Path(DEFAULT)
    check_output(output)
    if mask is None and not box:
        raise UsageError("Choose the part to redraw: --mask FILE or --box X,Y,WIDTH,HEIGHT.")
    seeds = tuple(all_seeds(seed) or [0])
    if best_of:
        if len(seeds) > 1:
            raise UsageError("--best-of draws seeds S, S+1, ... itself; give one --seed.")
        if best_of > MAX_PICTURES:
            raise UsageError(f"--best-of is {best_of}; expected at most {MAX_PICTURES}.")
        seeds = tuple(range(seeds[0], seeds[0] + best_of))
    with interruptible(lambda: NOTHING), open_model(choice, console) as pipe:
        picture, ratio = take_picture(pipe, image, fit, console)
        painted = _mask(mask, box or [], picture.image.size)
        tell_prompts(pipe, [prompt], console, ratio)
        if guidance is None:
            guidance = pipe.config.defaults.guidance if prompt else 0.0
        request = EditRequest(picture.image, painted, prompt, seeds, guidance, ratio, paste=paste)
        made = _followed(pipe, request, console)
        seen = visibility(pipe.flow.config, made.tokens)
        console.say(_order(seen))
        about: dict[str, Any] = {
            "generator": "mlx-starflow", "version": __version__, "command": "edit",
            "source": str(image), "mask": str(mask) if mask else None,
            "boxes": [list(b) for b in box or ()], "prompt": prompt, "guidance": guidance,
            "paste": paste, "model": choice.model or "default", "weights": pipe.fingerprint,
            **({"adapters": pipe.adapters} if pipe.adapters else {}),
            "tokens_drawn": int(made.tokens.sum()), "tokens": int(made.tokens.size),
        }  # fmt: skip
    scores = {str(s): round(float(p), 3) for s, p in zip(seeds, made.log_p, strict=True)}
    if best_of:
        about["best_of"] = scores
        console.say(
            f"Kept seed {seeds[made.best]}: log p = {made.log_p[made.best]:.1f} nats, the highest "
            f"of {len(seeds)} (lowest: {made.log_p.min():.1f})."
        )
    saved: list[Path] = []
    records: list[dict[str, Any]] = []
    with interruptible(lambda: f"saved: {', '.join(map(str, saved))}" if saved else NOTHING):
        for i in [made.best] if best_of else range(len(seeds)):
            own = {**about, "seed": seeds[i], "log_p": scores[str(seeds[i])]}
            path = name(output, seeds[i], None, len(seeds) > 1 and not best_of)
            saved.append(save_picture(made.images[i], path, own, overwrite=False))
            records.append({"path": str(saved[-1]), **own})
    show({"images": records, "files": []}, messages.json_)
    if open_:
        show_files(saved, console)


def _mask(file: Path | None, boxes: list[Box], size: tuple[int, int]) -> np.ndarray:
    """The mask (height, width) of the part to redraw: the union of file and boxes."""
    painted = np.zeros(size[::-1], bool) if file is None else open_mask(file, size)
    for box in boxes:
        painted |= box.mask(size)
    return painted


def _order(seen: Visibility) -> str:
    """A message about the kept tokens on which the new part depends."""
    side = "top" if seen.from_the_top else "bottom"
    if not seen.kept:
        return f"The mask covers the whole picture: all of it was redrawn, from the {side}."
    return (
        f"This model draws from the {side}. Of {counted(seen.kept, 'kept token')}, "
        f"{seen.seen_by_all} came before the whole new part and {seen.seen_by_none} after it."
    )


def _followed(pipe: Pipeline, request: EditRequest, console: Console) -> Edited:
    """Run the edit and show its progress."""
    blocks, work = len(pipe.flow.blocks), edit_steps(pipe, request)
    done = 0
    try:
        while True:
            event = next(work)
            if isinstance(event, BlockResult):
                done += 1
                continue
            share = (done + event.tokens_done / event.tokens_total) / blocks
            detail = f"{event.tokens_done}/{event.tokens_total} tokens"
            console.draw(f"block {done + 1}/{blocks}", detail, share, None)
    except StopIteration as stop:
        return stop.value
    finally:
        console.clear()
