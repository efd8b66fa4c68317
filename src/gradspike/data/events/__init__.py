"""Event recordings: decoding files and turning events into frames.

`recordings` picks the decoder of a file: `aedat2`, `aedat3`, `aedat4`, `nmnist_bin`, `prophesee_dat`, or `arrays` (.npy
and .npz). Each returns a `recording`; `table` holds many recordings in memory. `clips` cuts recordings into windows and
`frames` counts their events into frames; `ready_frames` reads frames made elsewhere. `source` is the base of all data
sets of recordings, `listing` finds their files.
"""
