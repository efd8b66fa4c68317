"""A saved W&B workspace that compares methods.

workspace   which sections and panels it has, and how runs are grouped
heat_map    the chart of layers x time steps, in Vega-Lite, since W&B has none of its own
server      what is asked of W&B: the project, the chart, the workspace
command     `gradspike dashboard`: options and order of work
"""
