"""Loggers of a run's numbers: JSON lines, TensorBoard, W&B."""
