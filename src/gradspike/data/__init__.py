"""Data sets: where samples come from, how they are prepared once, and how batches of them reach the compute device.

`registry` names the data sets, `*_config(s)` validate their options; `source` says what a data set has to provide.
`files` finds and reads files in folders and archives, `preparation` turns many of them into arrays, in parts and by
several processes, `cache` keeps the arrays on disk. Pictures: `picture_source`, `pictures`, and a file for each data
set. Events: `event_source`, `recordings`, `event_frames`, and a file for each data set; `event_camera` simulates them.
`random` and `augment` change samples reproducibly; `loader` and `datamodule` feed the trainer; `preview` draws them.
"""
