"""The converter: reads PyTorch checkpoints without PyTorch and writes them as bundles."""

import mlx_starflow  # noqa: F401  before mlx: it loads OpenBLAS and turns TF32 off
