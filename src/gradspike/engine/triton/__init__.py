"""The spiking layer as hand-written Triton kernels for CUDA."""
