"""What is known of released weights without opening them; light, so that `--help` and messages need no torch."""
