"""``mlx-starflow models``: list, show, download and remove models; empty the cache."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..adapters import adapters_below
from ..adapters.files import WEIGHTS as ADAPTER
from ..bundle.check import bytes_in
from ..bundle.vocabulary import read_vocabulary
from ..errors import UsageError
from ..files.counted import counted
from ..hub.cache import CachedModel, cache_directory, cached_models, remove_cached
from ..hub.clean import leftovers, remove
from ..hub.download import hub_cache, in_cache
from ..hub.known import CLIPS, DEFAULT, KNOWN, KnownModel, known_model
from ..hub.locate import EMBEDDED, embedded
from . import options as o
from .console import Console
from .failures import interruptible
from .fetch import acquire
from .help import SectionedCommand
from .tables import aligned

CARD = "MODEL_CARD.md"
ABOUT = {
    DEFAULT: "the small model of pictures inside the package",
    CLIPS: "the small model of clips inside the package",
}

models = typer.Typer(
    help="List, show, download and remove models; empty the cache.",
    no_args_is_help=False,
    rich_markup_mode=None,
)
Name = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A name from `models list`.", autocompletion=o.model_names
    ),
]


@models.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models()


@models.command("list", cls=SectionedCommand)
def list_models(json_: o.Json = False, debug: o.Debug = False) -> None:
    """List the known models, which of them are on this disk, and the adapters here."""
    rows = [_row(name, ABOUT[name], _embedded(name)) for name in embedded()]
    cached = cached_models()
    for model in KNOWN:
        here = [f"{m.precision}, {m.bytes / 1e9:.1f} GB" for m in cached if m.name == model.name]
        rows.append(_row(model.name, model.description, here))
    for place, config in adapters_below(Path()):
        about = f"adapter ({config.fine_tune_type}) for {config.base.name or config.base.weights}"
        size = f"{(place / ADAPTER).stat().st_size / 1e6:.1f} MB"
        rows.append(_row(str(place), about, [size]))
    if json_:
        typer.echo(json.dumps(rows))
        return
    here = [f"[{'; '.join(row['here'])}]" if row["here"] else "" for row in rows]
    table = [[row["name"], row["description"], h] for row, h in zip(rows, here, strict=True)]
    typer.echo(aligned(table, left=range(3)))


@models.command("show", cls=SectionedCommand)
def show_model(name: Name, json_: o.Json = False, debug: o.Debug = False) -> None:
    """Show a model's source, licence and size, and what is on this disk."""
    from .info import lines, model_facts

    if name in EMBEDDED:
        facts, bundle = model_facts(name), EMBEDDED[name]
        vocabulary = read_vocabulary(bundle)
        if vocabulary is not None:
            facts["vocabulary"] = {k: list(v) for k, v in vocabulary.kinds.items()}
        if (bundle / CARD).is_file():
            facts["card"] = (bundle / CARD).read_text(encoding="utf-8")
    else:
        model = _known(name)
        downloaded = in_cache(_repositories(model))
        facts = {
            "name": model.name,
            "description": model.description,
            "repository": model.repository,
            "checkpoint": model.checkpoint,
            "checkpoint_gigabytes": round(model.checkpoint_bytes / 1e9, 1),
            "vae": model.vae,
            "text_encoder": model.text_encoder,
            "licence": model.licence,
            "attribution": model.attribution,
            "downloaded_gigabytes": {k: round(v / 1e9, 1) for k, v in downloaded.items()},
            "converted": {m.precision: m.problem or str(m.path) for m in _copies(model)},
        }
    if json_:
        typer.echo(json.dumps(facts))
        return
    card = facts.pop("card", None)
    typer.echo("\n".join(lines(facts)))
    if card:
        typer.echo(f"\n{card.rstrip()}")


@models.command("download", cls=SectionedCommand)
def download_model(
    name: Name, quantize: o.Quantize = None, quiet: o.Quiet = False, debug: o.Debug = False
) -> None:
    """Download and convert a model, after showing size and licence. Continues broken downloads."""
    if name not in EMBEDDED and "/" not in name:
        _known(name)
    with interruptible(lambda: "the download is kept, and the same command continues it"):
        path = acquire(name, quantize.recipe if quantize else None, Console(quiet))
    typer.echo(str(path))


@models.command("remove", cls=SectionedCommand)
def remove_model(name: Name, debug: o.Debug = False) -> None:
    """Remove the converted copies of a model. Downloaded files stay in the hub's cache."""
    if name in EMBEDDED:
        raise UsageError(f"The model {name!r} is part of the package and cannot be removed.")
    model = _known(name)
    copies = _copies(model)
    if not copies:
        raise UsageError(f"There is no converted copy of {model.name} on this disk.")
    for copy in copies:
        typer.echo(f"removed {copy.path} ({remove_cached(copy) / 1e9:.2f} GB)")


@models.command("clean", cls=SectionedCommand)
def clean_models(
    all_: Annotated[
        bool,
        typer.Option("--all", help="Also remove converted models; they are made again when used."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be removed.")
    ] = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Remove incomplete downloads and conversions, and measurements, from the caches.

    Shows where the caches are. Complete downloads are kept, since other programs may use them.
    """
    done = 0
    with interruptible(lambda: f"{counted(done, 'entry', 'entries')} removed"):
        for leftover in leftovers(everything=all_):
            if not dry_run:
                remove(leftover)
                done += 1
            word = "would remove" if dry_run else "removed"
            size = f"{leftover.bytes / 1e9:.2f} GB"
            typer.echo(f"{word} {leftover.path} ({size}, {leftover.why})")
    for line in _caches():
        Console(quiet).say(line)


def _caches() -> list[str]:
    """Lines about the two caches: directory, size, and how to change the directory."""
    ours, hub = cache_directory(), hub_cache()
    here = bytes_in(ours) if ours.is_dir() else 0
    downloaded = sum(in_cache({r for m in KNOWN for r in _repositories(m)}).values())
    return [
        f"Converted models: {ours} ({here / 1e9:.2f} GB). To move: set MLX_STARFLOW_CACHE.",
        f"Downloads: {hub} ({downloaded / 1e9:.2f} GB of known models). To move: set HF_HOME; to "
        "empty: hf cache.",
    ]


def _repositories(model: KnownModel) -> list[str]:
    return [r for r in (model.repository, model.vae, model.text_encoder) if r]


def _known(name: str) -> KnownModel:
    model = known_model(name)
    if model is None:
        names = [m.name for m in KNOWN]
        near = difflib.get_close_matches(name, [n for m in KNOWN for n in (m.name, *m.aliases)], 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
        raise UsageError(f"There is no known model {name!r}. {hint}")
    return model


def _copies(model: KnownModel) -> list[CachedModel]:
    return [m for m in cached_models() if m.name == model.name]


def _embedded(name: str) -> list[str]:
    return [f"{bytes_in(EMBEDDED[name]) / 1e6:.0f} MB"]


def _row(name: str, description: str, here: list[str]) -> dict[str, Any]:
    return {"name": name, "description": description, "here": here}
