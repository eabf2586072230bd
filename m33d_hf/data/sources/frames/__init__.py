"""Folders of RGB, depth and label pictures."""
