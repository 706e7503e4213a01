"""Measurements of the codec: rate and distortion, round trips, damaged files."""
