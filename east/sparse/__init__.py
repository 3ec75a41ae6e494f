"""Sparsity itself: how many weights per tensor, when the masks change, and which weights move. Knows no networks."""
