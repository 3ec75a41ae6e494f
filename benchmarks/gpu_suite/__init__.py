"""The parts of `benchmarks.gpu`: each answers one question about a GPU."""
