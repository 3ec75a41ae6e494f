"""The sparse engine on CUDA: Triton kernels, and the network that they execute."""
