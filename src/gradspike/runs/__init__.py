"""A run's folder: its files, its environment, and how it is resumed."""
