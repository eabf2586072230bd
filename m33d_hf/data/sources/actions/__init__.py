"""Clips of actions, one label for each video."""
