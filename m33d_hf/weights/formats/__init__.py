"""The layouts of other projects' weights, one module each."""
