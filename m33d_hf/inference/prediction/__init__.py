"""From a trained model and a folder of pictures or videos to files that one can look at, whatever the task."""
