"""Recipes (what to train on, how long, how fast), methods (which losses, which targets), the paper's results; all YAML."""
