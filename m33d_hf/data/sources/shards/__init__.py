"""The `shards` source: frames in tar files."""
