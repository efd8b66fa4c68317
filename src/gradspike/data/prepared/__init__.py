"""Prepared data sets on disk, in data_dir/prepared.

`cache` opens a set or builds it once; `stored` reads and writes its files, `digests` finds damage, `origin` knows which
files it was made of; `parts` builds it in parts with several processes (`work_pool`, `work_bar`); `disk` watches free
space; `file_source` is the base of all data sets that are prepared from files.
"""
