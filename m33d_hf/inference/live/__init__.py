"""Phases of a feed that is still running: clips as they end, their times, and what is missing between them."""
