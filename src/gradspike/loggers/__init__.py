"""Where numbers go besides the terminal: JSON lines, W&B."""
