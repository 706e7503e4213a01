"""The command line: the table of commands (app.py), one file per command, and shared options."""
