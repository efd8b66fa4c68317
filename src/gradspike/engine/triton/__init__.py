"""The spiking layer as hand-written Triton kernels for CUDA.

`engine` launches them, `tiling` divides the work; `kernels`, `tiles` (what kernels do with a tile) and `surrogates` run
on the GPU.
"""
