"""The file layouts of phase annotations, one module each."""
