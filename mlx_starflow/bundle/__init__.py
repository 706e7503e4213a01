"""A model on disk: its weights, checks, precision, fingerprint and vocabulary."""
