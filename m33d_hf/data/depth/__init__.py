"""Depth files: their unit, reading and writing, and the depth of videos."""
