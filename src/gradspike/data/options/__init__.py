"""Options of the data sets."""
