"""Work on given pictures: edit, vary, interpolate; choosing among samples, and uncertainty."""
