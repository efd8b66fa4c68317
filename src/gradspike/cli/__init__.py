"""The command line: `arguments` for `key=value` commands, `hydra` for training, `train` and `prepare`."""
