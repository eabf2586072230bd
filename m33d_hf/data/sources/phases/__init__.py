"""Whole videos with annotated phases."""
