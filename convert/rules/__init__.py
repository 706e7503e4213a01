"""What each family of checkpoints means: shapes and settings become a configuration."""
