"""The Triton kernels: what runs on the device. The modules beside this package launch them."""
