"""`gradspike curves`: the curves of one run as an image, without W&B.

`records` reads a run's files, `plot` draws, `command` is the command line.
"""
