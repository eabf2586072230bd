"""What a run shows of itself: pictures of its samples and predictions, its report, and what to type next."""
