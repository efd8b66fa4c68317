"""The command line: `arguments` parses `key=value` commands, `hydra` that of training; some commands."""
