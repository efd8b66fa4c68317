"""Data sets: finding the files, preparing them once, and feeding batches to the compute device.

`registry` names the data sets; `source` says what a data set provides.

- `options`: the keys of each data set.
- `sets`: one file per data set. CIFAR files are read in `sets/cifar.py`.
- `files`: folders, zip and tar files; which of their files are samples.
- `pictures`: decoding and scaling of picture files, kept as pixels or compressed.
- `events`: decoding of event recordings and their conversion to frames. `camera`: the simulated event camera.
- `prepared`: the prepared arrays on disk, built in parts by several processes.
- `augment`: reproducible augmentation. `loader`, `datamodule`: order, batches, devices. `preview`: the contact sheet.
"""
