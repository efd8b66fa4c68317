"""What is printed: tables, bars, log lines."""
