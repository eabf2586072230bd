"""From any source to prepared data: Parquet or tar shards."""
