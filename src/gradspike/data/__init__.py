"""Data sets: finds the files, prepares them once, and loads batches onto the compute device.

`registry` lists the data sets by name; `source` defines what a data set provides.

- `options`: the keys of each data set.
- `sets`: one file per data set. CIFAR files are read in `sets/cifar.py`.
- `files`: folders, zip and tar files; which of their files are samples.
- `pictures`: decoding and scaling of image files, stored as pixels or compressed.
- `events`: decoding of event recordings and their conversion to frames. `camera`: the simulated event camera.
- `prepared`: the prepared arrays on disk, built in parts by several processes.
- `augment`: reproducible augmentation. `loader`, `datamodule`: order, batches, devices. `preview`: the contact sheet.
"""
