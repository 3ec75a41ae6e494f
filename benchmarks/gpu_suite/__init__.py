"""The parts of the GPU suite, `python -m benchmarks.gpu`."""
