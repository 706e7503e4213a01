"""mlx-starflow: exact normalizing flows for images, on MLX.

>>> import mlx_starflow as sf
>>> pipe = sf.load()  # the embedded model
>>> pipe.generate("a fox in snow", seed=7).images[0].save("fox.png")

``load`` returns a pipeline from prompt to picture. The mathematics underneath are plain functions
of a flow: ``invert`` (noise to data), ``encode`` (data to noise), ``log_prob``, ``denoise``.

Importing the package is fast: the module of a name is imported when the name is first used.
"""

from .interrupts import hide_interrupts_of_the_command

hide_interrupts_of_the_command()  # first, so that it covers the imports below

from importlib import import_module  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from .device.blas import load_openblas  # noqa: E402
from .device.precision import forbid_tf32  # noqa: E402

forbid_tf32()  # both must run before the first import of mlx.core; their modules say why
load_openblas()

if TYPE_CHECKING:
    from .errors import StarflowError
    from .exact.denoise import denoise
    from .exact.encoding import encode
    from .exact.infill import infill
    from .exact.likelihood import bits_per_dim, log_prob
    from .exact.scoring import score_pictures
    from .exact.sphere import slerp
    from .flow import Flow
    from .pipeline import Pipeline, load
    from .sampling import SampleOptions, invert, invert_steps
    from .version import __version__

_HOME = {  # where each name lives
    "Flow": "flow",
    "Pipeline": "pipeline",
    "SampleOptions": "sampling",
    "StarflowError": "errors",
    "__version__": "version",
    "bits_per_dim": "exact.likelihood",
    "denoise": "exact.denoise",
    "encode": "exact.encoding",
    "infill": "exact.infill",
    "invert": "sampling",
    "invert_steps": "sampling",
    "load": "pipeline",
    "log_prob": "exact.likelihood",
    "score_pictures": "exact.scoring",
    "slerp": "exact.sphere",
}
_MODULES = (
    "codec", "config", "errors", "events", "exact", "export", "exported", "flow", "pipeline",
    "sampling",
)  # fmt: skip

__all__ = [
    "Flow",
    "Pipeline",
    "SampleOptions",
    "StarflowError",
    "__version__",
    "bits_per_dim",
    "denoise",
    "encode",
    "infill",
    "invert",
    "invert_steps",
    "load",
    "log_prob",
    "score_pictures",
    "slerp",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next look-up finds it without calling this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
