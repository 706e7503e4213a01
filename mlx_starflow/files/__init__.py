"""Input from outside: only regular files, size limits, typed JSON, and text safe to display."""
