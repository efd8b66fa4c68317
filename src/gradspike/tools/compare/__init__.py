"""Comparing runs: from folders to a table and a page.

run         what is known of one run
gather      finds runs in folders, and says why one cannot be used
wandb_files the same from W&B's offline files
groups      what differs between runs, which of them belong together, and what must not be compared
statistics  mean, interval, paired differences, p-values
energy      synaptic operations and energy of an inference
series      curves, heat maps and the like, over the seeds of a group
report      everything that is shown, as plain data
table       the main table for a terminal, as Markdown, LaTeX and CSV
page        the HTML page, out of the files in page/
command     `gradspike compare`: options and order of work
"""
