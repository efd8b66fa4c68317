"""The options of each data set, validated before torch is imported.

`base` holds what all data sets share, `pictures` and `events` the options of theirs, `camera` those of the simulated
event camera.
"""
