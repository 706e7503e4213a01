"""Importing the ``convert`` package of this installation, even if another package has its name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

HOME = Path(__file__).parents[2] / "convert"
_OWN_NAME = "mlx_starflow_convert"  # used if another package has the name `convert`


def converter_module(module: str) -> ModuleType:
    """Import ``convert.MODULE`` of this installation; another ``convert`` package is not imported.

    Errors: ImportError if this installation has no converter.
    """
    return importlib.import_module(f"{_package()}.{module}")


def _package() -> str:
    """The name under which the converter can be imported."""
    loaded = sys.modules.get("convert")
    spec = loaded.__spec__ if loaded else importlib.util.find_spec("convert")
    if spec is not None and spec.origin and Path(spec.origin).parent == HOME:
        return "convert"
    if _OWN_NAME not in sys.modules:
        own = importlib.util.spec_from_file_location(
            _OWN_NAME, HOME / "__init__.py", submodule_search_locations=[str(HOME)]
        )
        if own is None or own.loader is None or not (HOME / "__init__.py").is_file():
            raise ImportError(
                f"The converter is missing: {HOME} does not exist. Install mlx-starflow again."
            )
        package = importlib.util.module_from_spec(own)
        sys.modules[_OWN_NAME] = package
        own.loader.exec_module(package)
    return _OWN_NAME
