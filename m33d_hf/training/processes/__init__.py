"""What processes share: launching, checkpoints, optimizers, sharding."""
