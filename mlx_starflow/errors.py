"""The errors that this package raises.

A message is written for the user: it names the file, key or value, says what was expected and
what to do.
"""


class StarflowError(Exception):
    """Base class of all errors that this package raises."""


class UsageError(StarflowError, ValueError):
    """An argument or option with an invalid value (exit status 2)."""


class ConfigError(StarflowError, ValueError):
    """A configuration that is unknown, incomplete or contradicts the weights."""


class CheckpointError(StarflowError):
    """A PyTorch checkpoint that cannot be read or has unexpected content."""


class WeightsError(StarflowError):
    """A tensor that is missing, unexpected, of the wrong shape, or holds NaN or infinity."""


class ModelNotFoundError(StarflowError, FileNotFoundError):
    """There is no model of this name, in this directory or in this repository."""


class HubError(StarflowError):
    """The model hub refused a request, failed, or cannot be reached."""


class TextError(StarflowError, ValueError):
    """A prompt, label or tokenizer that does not fit the model."""


class ImageError(StarflowError, ValueError):
    """A picture that cannot be read, written, or used with the model."""


class ImageUsageError(ImageError, UsageError):
    """A picture that does not exist, or whose size does not match the model or the other picture
    (exit status 2)."""


class NumericsError(StarflowError, ArithmeticError):
    """NaN or infinity where a number was expected."""


class OutOfMemoryError(StarflowError, MemoryError):
    """The request needs more memory than the device has; the message says what would fit."""


class CodecError(StarflowError, ValueError):
    """A compressed picture that is damaged, or that this model or machine cannot decode."""


class Cancelled(StarflowError):
    """The work was cancelled by its caller."""


class Interrupted(Exception):
    """Ctrl-C in a command; the message says what was finished by then. It is not a StarflowError,
    since it is no failure."""
