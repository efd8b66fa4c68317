"""What the terminal shows: tables and log lines."""
