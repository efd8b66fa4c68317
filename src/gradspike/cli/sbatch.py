"""What Slurm's sbatch allows, for the commands that write its options."""

EXCLUSIVE = ("user", "mcs", "topo")
"""Values of --exclusive besides none."""
