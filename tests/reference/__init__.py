"""docs/arithmetic.md a second time, in plain and slow NumPy; it imports nothing of `east`."""
