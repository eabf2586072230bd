"""From sources to batches: data sets, collation and worker processes."""
