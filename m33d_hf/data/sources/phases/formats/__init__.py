"""The layouts in which people write down which phase each moment of a video belongs to, one module each."""
