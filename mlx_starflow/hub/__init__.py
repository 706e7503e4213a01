"""Getting a model: known names, downloads that resume, the cache, conversion."""
