"""Names and numbers of classes, label pictures and what they hold."""
