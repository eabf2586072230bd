"""Detected phases to look at, to correct and to hand on: subtitles, JSON, and a page per video."""
