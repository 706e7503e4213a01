"""The command line's own parts: options, names of output files, progress, errors, commands."""
