"""The rules of each family of checkpoints: from tensor shapes and settings to a configuration."""
