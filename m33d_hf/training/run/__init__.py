"""A training run, from its start to its last evaluation."""
