"""What a run's checkpoint, data and machine decide of its arguments, before anything is built."""
