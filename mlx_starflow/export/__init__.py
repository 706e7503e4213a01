"""Models as functions for apps without Python: ``export``."""

from .plan import WHAT
from .write import ExportReport, export

__all__ = ["WHAT", "ExportReport", "export"]
