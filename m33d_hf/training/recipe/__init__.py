"""The arguments of a run: their fields, recipe files and the command line."""
