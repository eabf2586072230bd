"""Data sets over sources, collation, workers."""
