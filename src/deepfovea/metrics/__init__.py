"""What evaluation measures."""
