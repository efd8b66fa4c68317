"""Kills of running trainings, damage to run folders, and the equality of ranks: `python -m storm --help`."""
