"""The options of each data set, validated before torch is imported.

`base`: options of all data sets. `pictures`, `events`: options of image and event sets. `camera`: options of the
simulated event camera.
"""
