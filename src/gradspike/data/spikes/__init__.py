"""Data sets of spike trains in HDF5 files.

`hdf5` reads a file, `counts` turns a recording into counts per time step and channel, `source` prepares a data set.
"""
