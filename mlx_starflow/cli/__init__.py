"""The command line: the table of commands, a file for each, and the options they share."""
