"""Files that are complete or absent, reading ahead, and decoded videos."""
