"""What begins with given pictures: edit, vary, interpolate, and choosing among samples."""
