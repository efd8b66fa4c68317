"""Sweeps: a W&B sweep file, run trial by trial without any server.

file        the sweep file and its schema
parameters  the distributions W&B knows, and how a value is drawn from them
proposals   which trials a sweep consists of: every grid point, random draws, or places for a search to fill
words       what stands on a trial's command line, and that our configuration accepts it
study       the Optuna study that says which trial is free, under way or done
folder      the sweep's folder: locks, each trial's record and log
trial       one trial: start it, or go on with it, and what came out
slurm       the same as a job of a cluster
progress    how far a run is
table       what the person at the terminal sees
runner      keeps the workers busy until nothing is left
command     `gradspike sweep`: options and order of work
"""
