"""Run folders: their files, the environment of a run, and resuming."""
