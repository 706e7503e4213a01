"""The version, in one place: the package, the command, bundles and pictures all name it."""

__version__ = "0.1.0"
