"""``mlx-starflow train`` on several ranks: what they agree on, and where each writes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..generation.components import Components
from ..ranks import Group, agree
from ..ranks.engine import mlx_group
from ..training.options import TrainOptions
from ..training.run import Task
from ..training.together import Together


@contextlib.contextmanager
def on_ranks(
    components: Components, task: Task, options: TrainOptions, group: Group | None
) -> Iterator[tuple[Task, Together]]:
    """The task of this rank, and all ranks together; for one process the task itself. Ranks other
    than 0 write to a temporary directory. Errors: StarflowError naming a rank with other options,
    pictures or weights."""
    if group is None:
        yield task, Together()
        return
    split = components.split
    engine = mlx_group(group) if split is None else split.group
    settings = {**dataclasses.asdict(options), "prompt": task.prompt, "fit": task.fit,
                "resume": task.resume, "previews": task.previews}  # fmt: skip
    names = sorted(path.name for path in task.data.iterdir()) if task.data.is_dir() else []
    facts = {
        "model": f"{components.config.name} ({components.fingerprint})",
        "settings": json.dumps(settings, sort_keys=True),
        "folder of pictures": f"{len(names)} files",
        "split": "pictures" if split is None else split.kind,
    }
    agree(group, facts)
    together = Together(engine, group.share, group.step, divided=split is not None)
    if group.rank == 0:
        with group.watched():
            yield task, together
        return
    with group.watched(), tempfile.TemporaryDirectory(prefix="mlx-starflow-") as folder:
        group.at_end(lambda: shutil.rmtree(folder, ignore_errors=True))
        previews = 0 if split is None else task.previews  # which a divided flow draws on all ranks
        yield dataclasses.replace(task, adapter_path=Path(folder), previews=previews), together
