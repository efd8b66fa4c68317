"""The files of a data set, in a folder or an archive.

`containers` lists folders, zip and tar files; `files` gives one view of all three; `by_class` sorts files into splits
and classes; `find` searches data_dir; `fingerprint` notices changes; `download` fetches the official files.
"""
