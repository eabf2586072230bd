"""What trained models are used for on long inputs: depth and feature extraction, phase timelines."""
