"""Pure functions of a flow: likelihood, encoding, denoising, scores, infilling, interpolation,
coding."""
