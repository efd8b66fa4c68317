"""Where numbers go: files, W&B, TensorBoard, the terminal."""
