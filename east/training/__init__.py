"""Training a run: the loop, its recipe, its checkpoints and its records."""
