"""Event recordings: decode files and turn events into frames.

`recordings` selects the decoder for a file: `aedat2`, `aedat3`, `aedat4`, `nmnist_bin`, `prophesee_dat`, or `arrays`
(.npy and .npz). Each returns a `recording`; `table` holds many recordings in memory. `clips` cuts recordings into
windows, and `frames` accumulates their events into frames. `ready_frames` reads precomputed frames. `source` is the
base class of all event data sets, and `listing` finds their files.
"""
