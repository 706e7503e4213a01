"""``mlx-starflow train``: train the model on the user's pictures."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import Interrupted, UsageError
from ..generation.components import Components
from ..hub.acquire import acquire
from ..training.checkpoint import STATE
from ..training.events import Encoded, Ended, Evaluated, Noted, Previewed, Stepped
from ..training.options import TrainOptions, read_settings
from ..training.run import Task
from ..training.run import train as run
from ..training.scratch import begin_bundle, finish_bundle, removed_on_failure
from ..training.together import Together
from . import options as o
from .console import Console
from .fetch import Fetching
from .membership import ranks
from .options import OUTPUT, WHAT, option
from .outputs import check_directory
from .picture_options import Fit
from .rank_options import RankFlags, SplitBy, SplitOption, split_of
from .train_flags import Training
from .train_ranks import on_ranks
from .train_settings import read_yaml

EPILOG = """\b
Examples:
  mlx-starflow train --data my-drawings
  mlx-starflow generate "a fox in snow" --adapter-path adapters
  mlx-starflow train --data my-cat --prompt "a photo of xyz cat" --adapter-path my-cat-adapter
  mlx-starflow train --data my-drawings --resume
  mlx-starflow train -c train.yaml --learning-rate 5e-4

The folder holds pictures with a caption file NAME.txt for each (a picture that this program drew
needs none: its prompt is stored in it), or a train.jsonl with lines of {"image": ..., "prompt":
...}, or pictures without captions and one --prompt for all. A tenth of the pictures is held out, or
those in valid/ or valid.jsonl. Training stops when the bits per dimension of the held-out pictures
no longer improve, and the best adapter is kept.
"""
Data = Annotated[
    Path | None, option("--data", panel=WHAT, metavar="DIR", help="A folder of pictures.")
]
Prompt = Annotated[
    str | None,
    option("--prompt", panel=WHAT, metavar="TEXT", help="Caption of pictures without one."),
]
FitData = Annotated[
    Fit | None,
    option("--fit", panel=WHAT, help="What to do with pictures of another size: crop around the "
            "centre and scale, stretch, or refuse (leave them out). Default: crop."),
]  # fmt: skip
ConfigFile = Annotated[
    Path | None,
    option("--config", "-c", panel=WHAT, metavar="FILE", help="A YAML file with these options; "
            "flags take precedence over it."),
]  # fmt: skip
AdapterDir = Annotated[
    Path | None,
    option("--adapter-path", panel=OUTPUT, metavar="DIR", help="Directory of the adapter. Default: "
            "adapters."),
]  # fmt: skip
Resume = Annotated[
    bool,
    option("--resume", panel=OUTPUT, help="Continue the training in --adapter-path; the result is "
            "the same as without the interruption."),
]  # fmt: skip
ResumeFile = Annotated[
    Path | None,
    option("--resume-adapter-file", panel=OUTPUT, metavar="FILE", help="Start with the weights of "
            "an adapter and a new optimizer."),
]  # fmt: skip
Previews = Annotated[
    int,
    option("--previews", panel=OUTPUT, metavar="N", min=0, max=64, help="Pictures drawn at every "
            "evaluation, from fixed seeds; 0: none. Default: 2."),
]  # fmt: skip
PreviewPrompts = Annotated[
    list[str] | None,
    option("--preview-prompt", panel=OUTPUT, metavar="TEXT", help="Prompt of the previews; repeat "
            "the flag for several prompts. Default: the first captions."),
]  # fmt: skip
Scratch = Annotated[
    bool,
    option("--from-scratch", panel=WHAT, help="Train a new flow from random weights, with the "
            "autoencoder and text encoder of --model. Needs --save-path."),
]  # fmt: skip
Shape = Annotated[
    str | None,
    option("--shape", panel=WHAT, metavar="L,L,...xWIDTH", help="With --from-scratch: the number "
            "of layers of each block, the deep block last, and their width, such as 1,1,5x256."),
]  # fmt: skip
SavePath = Annotated[
    Path | None,
    option("--save-path", panel=OUTPUT, metavar="DIR", help="With --from-scratch: the new model."),
]
NoiseStd = Annotated[
    float | None,
    option("--noise-std", panel=WHAT, metavar="S", min=0.0, help="With --from-scratch: standard "
            "deviation of the noise added to latents. Default: that of --model."),
]  # fmt: skip


def train(
    data: Data = None,
    prompt: Prompt = None,
    fit: FitData = None,
    config: ConfigFile = None,
    from_scratch: Scratch = False,
    shape: Shape = None,
    noise_std: NoiseStd = None,
    *,
    training: Training,
    adapter_path: AdapterDir = None,
    save_path: SavePath = None,
    resume: Resume = False,
    resume_adapter_file: ResumeFile = None,
    previews: Previews = 2,
    preview_prompt: PreviewPrompts = None,
    model: o.Model = None,
    dtype: o.Precision = None,
    quantize: o.Quantize = None,
    where: RankFlags,
    split: SplitOption = SplitBy.pictures,
    messages: o.Messages,
    verbose: o.Verbose = False,
) -> None:
    """Train the model on pictures of a style or a subject: LoRA, DoRA, or all of its weights.

    The loss is the exact negative log-likelihood. The estimated memory is shown first. Ctrl-C saves
    the state, and --resume continues. The adapter's directory is written to standard output, with
    --json as part of one JSON object.
    """
    where.start()
    console = Console(messages.quiet, verbose)
    stored = read_settings(read_yaml(config), str(config)) if config else {}
    given = {
        "data": data, "prompt": prompt, "fit": fit and fit.value, "model": model,
        "adapter_path": adapter_path, "resume_adapter_file": resume_adapter_file,
    }  # fmt: skip
    place: dict[str, Any] = {
        k: v if v is not None else stored.pop(k, None) for k, v in given.items()
    }
    for name in given:
        stored.pop(name, None)
    numbers = {**stored, **training.given()}
    options = TrainOptions(**_for_scratch(numbers) if from_scratch else numbers)
    if place["data"] is None:
        raise UsageError("Name the folder of pictures with --data DIR.")
    if resume and place["resume_adapter_file"]:
        raise UsageError("--resume has weights of its own; leave --resume-adapter-file out.")
    directory = Path(place["adapter_path"] or "adapters")
    check_directory(save_path if from_scratch and save_path else directory)
    group = ranks()
    if group is not None and from_scratch:
        raise UsageError("--from-scratch runs in one process.")
    divided = split_of(split, group, "Training has no guidance")
    name, source = place["model"] or "default", place["model"]
    made = contextlib.ExitStack()
    if from_scratch:
        if save_path is None or (shape is None and not resume):
            raise UsageError("--from-scratch needs --shape and --save-path.")
        template = acquire(source, None, Fetching(console))
        source = begin_bundle(template, save_path, shape, noise_std, options.seed, resume)
        name, directory = str(save_path), save_path / "training"
        if not resume:
            made.enter_context(removed_on_failure(save_path, directory))
    elif shape or save_path or noise_std is not None:
        raise UsageError("--shape, --noise-std and --save-path are only for --from-scratch.")
    task = Task(
        data=Path(place["data"]),
        adapter_path=directory,
        prompt=place["prompt"],
        fit=place["fit"] or "crop",
        resume=resume,
        begin_from=Path(place["resume_adapter_file"]) if place["resume_adapter_file"] else None,
        previews=previews,
        preview_prompts=tuple(preview_prompt or ()),
    )
    with made:
        components = Components(
            acquire(source, quantize.recipe if quantize else None, Fetching(console)), name,
            dtype.value if dtype else None, quantize.recipe if quantize else None,
            Fetching(console), split=divided,
        )  # fmt: skip
        with on_ranks(components, task, options, group) as (task, together):
            summary = _followed(components, task, options, console, together)
        if summary["stopped"] == "interrupted" and not (directory / STATE).exists():
            raise Interrupted("Interrupted before the first step; there is nothing to resume.")
        if from_scratch:
            if summary["stopped"] != "interrupted":  # the state belongs to the initial weights
                finish_bundle(components, directory)
            summary["model"] = str(save_path)
    if messages.json_:
        typer.echo(json.dumps(summary))
    else:
        typer.echo(str(save_path if from_scratch else directory))
    if summary["stopped"] == "interrupted":
        draw = f" To draw with it as it is: --model {save_path} --lora {directory}."
        raise Interrupted(
            f"Interrupted after {summary['iterations']} of {options.iters} steps; the state is "
            f"saved in {directory}. To continue, run the same command with --resume."
            + (draw if from_scratch else "")
        )


def _for_scratch(given: dict[str, Any]) -> dict[str, Any]:
    """The options of a training from scratch: the given ones, and defaults for all weights with
    Muon."""
    usual = {"optimizer": "muon", "ema": 0.995, "weight_decay": 0.01, "final_rate": 0.01,
             "learning_rate": 1e-3, "warmup": 100, "batch_size": 32, "patience": 0}  # fmt: skip
    if given.get("fine_tune_type", "full") != "full":
        raise UsageError("--from-scratch trains all weights; leave --fine-tune-type out.")
    return {**usual, **given, "fine_tune_type": "full"}


def _followed(
    components: Components,
    task: Task,
    options: TrainOptions,
    console: Console,
    together: Together,
) -> dict[str, Any]:
    """Run the training and show its progress; returns its summary."""
    began, bits = time.perf_counter(), math.nan
    summary: dict[str, Any] = {}
    with _stopping() as stop:
        for event in run(components, task, options, stop, together):
            if isinstance(event, Noted):
                console.say(event.sentence)
            elif isinstance(event, Encoded):
                share = event.done / event.total
                console.draw("encode", f"{event.done}/{event.total} pictures", share, None)
            elif isinstance(event, Stepped):
                bits = event.bits_per_dim
                share = event.step / event.steps
                left = (time.perf_counter() - began) * (1 - share) / share
                console.draw("train", f"{event.step}/{event.steps}  {bits:.4f} bits/dim", share,
                             left)  # fmt: skip
                if event.step % options.steps_per_report == 0:
                    console.detail(f"Step {event.step}: {bits:.4f} bits/dim")
            elif isinstance(event, Evaluated):
                error = event.valid.standard_error
                more = "" if math.isnan(error) else f" ± {error:.4f}"
                console.say(
                    f"Step {event.step}: held out {event.valid.mean:.4f}{more} bits/dim"
                    + ("" if event.train is None else f", training {event.train:.4f}")
                    + (" (best, kept)" if event.is_best else "")
                )
            elif isinstance(event, Previewed):
                console.detail(f"Preview: {event.path}")
            elif isinstance(event, Ended):
                summary = event.summary
    console.clear()
    if summary.get("stopped") == "patience":
        console.say(
            f"Stopped: no improvement in {options.patience} evaluations. The adapter of step "
            f"{summary['best_iteration']} is kept ({summary['valid_bits_per_dim']:.4f} bits/dim)."
        )
    return summary


@contextmanager
def _stopping() -> Iterator[Any]:
    """A context with a function that returns whether Ctrl-C was pressed. Pressing it a second time
    ends the command at once."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def press(number: int, frame: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
