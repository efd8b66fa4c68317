"""Trains, tests and records the network of a validated configuration."""
