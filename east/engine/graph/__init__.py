"""How a network becomes units, buffers and an index of non-zeros, whatever device executes them."""
