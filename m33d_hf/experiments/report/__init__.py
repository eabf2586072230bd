"""What is told of an experiment, from its results.json alone."""
