"""Sweeps: a W&B sweep file, run trial by trial without a server.

command        `gradspike sweep`: the order of its steps
options        its command line
file           the sweep file and its schema
parameters     one parameter, and those that list their values; also ranges, normals
distributions  W&B's names for them
proposals      the trials: all points of a grid, random draws, or places for a search to fill
words          the command line of a trial, and whether our configuration accepts it
definition     what must stay the same while a sweep continues
study          the Optuna study: which trials are waiting, running or done
folder         the sweep's folder: locks, records, logs
runner         the loop that starts, watches and settles trials
running        a running trial as its runner sees it
trial          one trial: its process, its run and its outcome
slurm          trials as cluster jobs
progress       the progress of a run, from its files
table          what the terminal shows
"""
