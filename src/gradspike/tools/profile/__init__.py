"""Where a training step's time and memory go: intervals between marks (clock.py), set while a real training runs
(measure.py), what is kept in memory (memory.py), shown (table.py), as a command.
"""
