"""Augmentation of samples between source and batch: crops, views, colour, clips, mixing."""
