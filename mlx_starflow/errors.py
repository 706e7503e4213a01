"""Every error this package raises on purpose.

The message is for the person at the keyboard: it names the file, key or value, says what was
expected and what to do about it.
"""


class StarflowError(Exception):
    """Base class: catch this to catch everything this package raises on purpose."""


class UsageError(StarflowError, ValueError):
    """An argument or flag that cannot be honoured (exit status 2)."""


class ConfigError(StarflowError, ValueError):
    """A configuration that is unknown, incomplete or contradicts the weights."""


class CheckpointError(StarflowError):
    """A source checkpoint that cannot be read, or that holds what it should not."""


class WeightsError(StarflowError):
    """A missing, extra or misshapen tensor, or one that is not finite."""


class ModelNotFoundError(StarflowError, FileNotFoundError):
    """No model by this name, in this directory or in this repository."""


class HubError(StarflowError):
    """The model hub refused, failed, or cannot be reached."""


class TextError(StarflowError, ValueError):
    """A prompt, label or tokenizer that does not fit the model."""


class ImageError(StarflowError, ValueError):
    """A picture that cannot be read, written, or used with the model."""


class ImageUsageError(ImageError, UsageError):
    """A picture that is not there, or of a size that the model or the other picture does not have
    (exit status 2)."""


class NumericsError(StarflowError, ArithmeticError):
    """NaN or infinity where a number was expected."""


class OutOfMemoryError(StarflowError, MemoryError):
    """The model does not fit the device; the message says what would."""


class CodecError(StarflowError, ValueError):
    """A compressed picture that is damaged, or that this model or machine cannot decode."""


class Cancelled(StarflowError):
    """The work was cancelled by its caller."""


class Interrupted(Exception):
    """Ctrl-C in a command; the message says what was finished by then. Not a StarflowError: nothing
    went wrong."""
