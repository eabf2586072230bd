"""Data sets of the `datasets` library and Parquet files: prepared here, from the Hub, or anyone's own."""
