"""Data sets: where samples come from, how they are prepared once, and how batches of them reach the compute device.

`registry` names the data sets and validates their options; `source` says what a data set has to provide; `digits` and
`digits_events` provide it; `cache` keeps prepared arrays on disk; `event_camera` and `event_frames` simulate and bin
events; `random` and `augment` change samples reproducibly; `datamodule` feeds the trainer.
"""
