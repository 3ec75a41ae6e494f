"""What may go wrong around a plan, tried at length: `python -m benchmarks.faults` (benchmarks/README.md)."""
