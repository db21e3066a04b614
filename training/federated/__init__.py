"""Training over several owners of data with Flower: weights travel, images stay where they are."""
