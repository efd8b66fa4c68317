"""What the trainer does besides training: checkpoints, progress, interruption, timing, firing rates."""
