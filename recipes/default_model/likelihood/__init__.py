"""What the likelihood of the default model is good for, measured: one command for all tables."""
