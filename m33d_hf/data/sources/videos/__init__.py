"""Video files and folders that stand for videos."""
