"""Phases of recordings: their frames and clips, several cameras of a case, depth, and what was found."""
