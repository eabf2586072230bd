"""Applying trained models: depth extraction, phase timelines of long videos, reconstruction pictures."""
