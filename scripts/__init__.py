"""Command-line entry points; also importable as `m33d_hf.scripts` so that a wheel has them."""
