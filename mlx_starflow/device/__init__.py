"""This machine and MLX's habits on it: BLAS, compiled activations, the worker thread, the clock."""
