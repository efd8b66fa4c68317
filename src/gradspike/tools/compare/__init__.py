"""Comparing runs: from folders to a table and a page.

run         one run
gather      finds runs in folders, and lists those that cannot be used
wandb_files reads runs from W&B's offline files
groups      differences between runs, groups of runs, and runs that must not be compared
statistics  mean, interval, paired differences, p-values
energy      synaptic operations and energy of an inference
series      curves, heat maps and other series, over the seeds of a group
report      all results, as plain data
table       the main table for a terminal, as Markdown, LaTeX and CSV
page        the HTML page, made from the files in page/
command     `gradspike compare`: options and sequence of steps
"""
