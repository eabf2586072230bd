"""Formats of files that hold many frames; `files.packed` finds them by their suffix."""
