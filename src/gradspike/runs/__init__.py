"""A run's folder: its files, its environment, how it is resumed."""
