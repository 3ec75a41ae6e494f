"""The report of a plan: one self-contained page, and what goes into it."""
