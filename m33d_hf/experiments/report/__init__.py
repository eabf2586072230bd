"""Reports of an experiment, from its results.json alone."""
