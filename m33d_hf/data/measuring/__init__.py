"""What the samples of a source are like: measured one by one, summed in constant memory, and judged."""
