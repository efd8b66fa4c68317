"""Sweeps: runs the trials of a W&B sweep file without a server.

command        `gradspike sweep`: the sequence of its steps
options        its command line
file           the sweep file and its schema
parameters     parameters, and those with listed values; also ranges, normals
distributions  W&B's names of the distributions
proposals      the trials: all points of a grid, random draws, or places for a search to fill
words          the command line of a trial, and its check against the configuration
definition     the settings that must not change when a sweep continues
study          the Optuna study: the waiting, running and finished trials
folder         the sweep's folder: locks, records, logs
runner         the loop that starts, watches and finishes trials; the trials it has are a workload
workload       what a runner is to run, and what it has under way
claiming       which trials it takes
launching      their start
watching       their progress, and whether they are worth going on
settling       what becomes of one that has ended
running        a running trial as its runner sees it
trial          one trial: its process, its run and its outcome
slurm          trials as cluster jobs
progress       the progress of a run, from its files
table          the terminal output
"""
