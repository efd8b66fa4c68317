"""A batch script for Slurm.

command  `gradspike slurm-script`: its arguments and the order of its steps
options  `slurm.<option>=<value>`: options of sbatch
script   the text of the script
"""
