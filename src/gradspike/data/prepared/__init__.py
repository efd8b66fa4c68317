"""Prepared data sets on disk, in data_dir/prepared.

`cache` opens a set or builds it once. `stored` reads and writes its files, `digests` detects damage, `origin` records
which files it was made from. `parts` builds it in parts with several processes (`work_pool`, `work_bar`). `disk` checks
free space. `file_source` is the base class of all data sets prepared from files.
"""
