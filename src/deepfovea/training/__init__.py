"""Data and loop of training."""
