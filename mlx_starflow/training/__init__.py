"""Training: adapters, fine-tuning of all weights, and new models."""
