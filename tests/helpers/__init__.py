"""Shared test helpers: samples, servers, checks, commands."""
