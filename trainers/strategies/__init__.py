"""The strategies, one file each, and their table."""
