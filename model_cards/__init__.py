"""Model card sources."""
