"""What a layer costs when it is executed, measured on this machine, and what is chosen by it."""
