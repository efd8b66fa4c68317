"""Terminal output: tables and log lines."""
