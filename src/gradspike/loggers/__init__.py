"""What records the numbers of a run: JSON lines, TensorBoard, W&B."""
