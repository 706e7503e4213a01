"""The version of the package. The command prints it; bundles and pictures store it."""

__version__ = "0.1.0"
