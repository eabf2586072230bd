"""What is done to a sample between its source and the batch: crops, views, colour, clips, mixing."""
