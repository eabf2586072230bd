"""Data sets in the library's own stored form: Parquet shards of frames that are resized already."""
