"""Figures from results and tensors; matplotlib is imported only when one is drawn."""
