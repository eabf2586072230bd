"""Names and numbers of classes, label maps and their statistics."""
