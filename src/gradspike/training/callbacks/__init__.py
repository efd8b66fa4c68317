"""Lightning callbacks: checkpoints, progress, interruption, timing, moving average, test records."""
