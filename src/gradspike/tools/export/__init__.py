"""`gradspike export`: a trained network for other programs, as NIR, ONNX or torch.export's pt2.

command      `gradspike export`: its arguments and the order of its steps
eight_bit    weights of 8 bits
thresholds   one threshold for all time steps
accuracy     the accuracy of a changed network
description  what a reader of a file must know
written      writes the file of a format, and the description
whole        a network from stored samples to logits, as plain torch operations
program      pt2 and ONNX
graph        NIR: the graph of a network
flow         records the layers of a network and what flows between them, for one time step
folding      the weights of a layer with the norm that follows folded in
neurons      NIR nodes of a spiking layer
"""
