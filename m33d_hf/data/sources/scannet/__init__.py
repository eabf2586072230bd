"""ScanNet: its recordings and exports, its label ids, its scene lists."""
