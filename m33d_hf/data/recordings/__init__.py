"""Reads what RGB-D cameras record, and writes it as folders of frames."""
