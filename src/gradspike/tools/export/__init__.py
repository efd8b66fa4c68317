"""`gradspike export`: a trained network for other programs, as NIR, ONNX or torch.export's pt2.

command    `gradspike export`: its arguments and the order of its steps
written    the formats, and how their files appear
flow       records the layers of a network and what flows between them, for one time step
folding    the weights of a layer with the norm that follows folded in
neurons    NIR nodes of a spiking layer
graph      the NIR graph of a network
"""
