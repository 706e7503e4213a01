"""mlx-starflow: exact normalizing flows for images, on MLX.

>>> import mlx_starflow as sf
>>> pipe = sf.load()  # the embedded model
>>> pipe.generate("a fox in snow", seed=7).images[0].save("fox.png")

``load`` gives a pipeline from prompt to picture. The mathematics underneath are plain functions
of a flow: ``invert`` (noise to data), ``encode`` (data to noise), ``log_prob``, ``denoise``.
"""

from .device.blas import load_openblas

load_openblas()  # has to come before the first import of mlx.core, see its module

from .errors import StarflowError  # noqa: E402
from .exact.denoise import denoise  # noqa: E402
from .exact.encoding import encode  # noqa: E402
from .exact.infill import infill  # noqa: E402
from .exact.likelihood import bits_per_dim, log_prob  # noqa: E402
from .exact.scoring import score_pictures  # noqa: E402
from .exact.sphere import slerp  # noqa: E402
from .flow import Flow  # noqa: E402
from .sampling import SampleOptions, invert, invert_steps  # noqa: E402
from .version import __version__  # noqa: E402

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


def __getattr__(name: str):
    """``load``, ``Pipeline`` and ``codec`` need more than the flow: imported when first asked
    for."""
    if name == "codec":
        from importlib import import_module

        return import_module(".codec", __name__)
    if name in ("load", "Pipeline"):
        from . import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
