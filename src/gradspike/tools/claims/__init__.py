"""`gradspike claims`: what papers claim, beside what our own runs show.

`claim.py` reads claims/*.yaml, `summary.py` the stored numbers of runs, `collect.py` makes them from a sweep's folder,
`quantities.py` and `exact.py` compute, `verdict.py` decides, `markdown.py`, `page.py` and `figures.py` write.
"""
