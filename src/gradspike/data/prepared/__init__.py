"""Prepared data sets on the disk: parts, workers, the cache."""
