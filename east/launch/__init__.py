"""What a process settles before PyTorch is imported: which GPU is its own, how many cores it takes."""
