"""Trained networks: loaded from the folder of their run, written for other programs, and shown images."""
