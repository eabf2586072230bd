"""Depth files: their unit, reading and writing them, depth of videos."""
