"""A run as a folder with which anybody can train it again."""
