"""Recipes (what to train on, how long, how fast), methods (losses and targets), the paper's results; all YAML."""
