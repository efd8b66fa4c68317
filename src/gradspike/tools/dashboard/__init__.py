"""A saved W&B workspace that compares methods.

command    `gradspike dashboard`: its arguments and the order of its steps
workspace  sections, panels and the grouping of runs
heat_map   a custom chart of layers x time steps in Vega-Lite
server     requests to W&B: the project, the chart, the workspace
"""
