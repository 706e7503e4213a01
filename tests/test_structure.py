"""Rules about the structure of the code that a program can check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "mlx_starflow").rglob("*.py"))
ALL = [*PACKAGE, *sorted((ROOT / "convert").rglob("*.py")), ROOT / "cli.py"]
LONGEST = 400  # lines of a file

# Lowest first: a room imports only from rooms in lines above its own.
ROOMS = (
    ("errors", "version", "interrupts"),
    ("files",),
    ("config",),
    ("device", "pictures"),
    ("bundle",),
    ("flow", "vae", "text"),
    ("hub", "sampling"),
    ("exact", "adapters"),
    ("generation",),
    ("events", "pipeline"),
    ("editing",),
    ("training",),
    ("codec", "watch", "exported"),
    ("export",),
    ("ranks",),
    ("benchmark",),
    ("server",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
ONLY_IN = {  # packages that one place knows
    "mlx_lm": "mlx_starflow/text/gemma.py",
    "typer": "mlx_starflow/cli",
    "av": "mlx_starflow/pictures/clips.py",
    "starlette": "mlx_starflow/server",
    "uvicorn": "mlx_starflow/server",
    "mcp": "mlx_starflow/server",
    "convert": None,
    "cli": None,
    "torch": None,
}


def imports(path: Path, anywhere: bool) -> set[str]:
    """Absolute names of the modules that a file imports, everywhere or only when imported."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree)) if anywhere else _outside_functions(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found.add(module)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def _outside_functions(tree: ast.AST) -> list[ast.AST]:
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def room_of(name: str) -> str:
    """The room of a module's dotted name: "mlx_starflow.flow.block" → "flow"."""
    return name.split(".")[1]


def test_every_room_has_its_level():
    rooms = {path.relative_to(ROOT / "mlx_starflow").parts[0] for path in PACKAGE}
    assert {Path(room).stem for room in rooms} - {"__init__"} == set(LEVEL)


def test_imports_go_one_way():
    wrong = []
    for path in PACKAGE:
        place = path.relative_to(ROOT)
        own = Path(place.parts[1]).stem
        for name in imports(path, True):
            top = name.split(".")[0]
            home = ONLY_IN.get(top, "")
            if home is None or (home and not str(place).startswith(home)):
                wrong.append(f"{place} imports {name}")
            if top == "mlx_starflow" and "." in name and room_of(name) in LEVEL:
                other = room_of(name)
                if own != "__init__" and other != own and LEVEL[other] >= LEVEL[own]:
                    wrong.append(f"{place} imports {name}")
    assert not wrong


def test_heavy_packages_wait_until_they_are_needed():
    for path in PACKAGE:
        assert not {"mlx_lm", "transformers", "torch"} & imports(path, False), path


def test_the_map_of_the_readme_names_every_room():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"## Where things are\s+```\n(.*?)```", text, re.DOTALL).group(1)
    named = re.findall(r"^  ((?:[a-z_]+/? )+)", tree, re.MULTILINE)
    rooms = {word.rstrip("/") for line in named for word in line.split()}
    assert rooms == set(LEVEL) - {"__main__"}


def test_files_are_small_and_do_not_print():
    for path in ALL:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= LONGEST, f"{path} is long: is it one thing?"
        calls = [n.func for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
        assert "print" not in {f.id for f in calls if isinstance(f, ast.Name)}, path


def test_reference_data_stays_small():
    files = [p for p in (ROOT / "tests" / "data").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 10e6
