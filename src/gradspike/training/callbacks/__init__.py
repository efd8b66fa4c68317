"""What happens around training: checkpoints, progress, interruption, timing, moving average, test records."""
