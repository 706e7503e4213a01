"""Measurements of the embedded model's likelihoods, for docs/likelihood.md."""
