"""Picture files and arrays: reading, writing, settings inside files, animations, heat maps."""
