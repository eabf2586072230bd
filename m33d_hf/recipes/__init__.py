"""Recipes (what to train on, how long, how fast), methods (which losses and targets) and the paper's results, as YAML."""
