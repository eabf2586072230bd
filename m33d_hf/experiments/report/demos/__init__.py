"""The reports of the two demos."""
