"""This machine and MLX's habits on it: BLAS, TF32, compiled activations, the worker thread, the
clock."""
