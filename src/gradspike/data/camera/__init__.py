"""A simulated event camera and the scenes moved before it."""
