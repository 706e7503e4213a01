"""This machine and how MLX uses it: BLAS, TF32, matrix products, activation functions, evaluation
in pieces, wired memory, the worker thread, the clock."""
