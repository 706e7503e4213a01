"""All knowledge of PyTorch files: reading them without PyTorch, and turning them into bundles."""
