"""Rules of the house that a program can hold."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "mlx_starflow").rglob("*.py"))
ALL = [*PACKAGE, *sorted((ROOT / "convert").rglob("*.py")), ROOT / "cli.py"]
LONGEST = 400  # lines of a file
PARTS = {"flow", "vae", "text"}  # never see each other


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


def test_imports_go_one_way():
    wrong = []
    for path in PACKAGE:
        part = path.relative_to(ROOT / "mlx_starflow").parts[0]
        others = {f"mlx_starflow.{other}" for other in PARTS - {part}} if part in PARTS else set()
        at_import = imports(path, False)
        for name in imports(path, True):
            top, start = name.split(".")[0], ".".join(name.split(".")[:2])
            if (
                (top in ("convert", "cli", "torch", "mlx_lm") and name in at_import)
                or (top in ("cli", "torch"))
                or (top == "mlx_lm" and path.name != "gemma.py")
                or (start in others)
                or (part != "app" and (start == "mlx_starflow.app" or top == "typer"))
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_files_are_small_and_do_not_print():
    for path in ALL:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= LONGEST, f"{path} is long: is it one thing?"
        calls = [n.func for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
        assert "print" not in {f.id for f in calls if isinstance(f, ast.Name)}, path


def test_reference_data_stays_small():
    files = [p for p in (ROOT / "tests" / "data").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 10e6
