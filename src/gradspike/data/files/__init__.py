"""The files of a data set, in a folder or an archive.

`containers` lists folders, zip and tar files; `files` gives all three one interface; `by_class` groups files by split
and class; `find` searches data_dir; `fingerprint` detects changes; `download` fetches the official files;
`other_formats` and `unread` explain what is not read.
"""
