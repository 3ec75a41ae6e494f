"""The engine that executes only the non-zeros: compiled kernels and the network that runs on them."""
