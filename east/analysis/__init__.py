"""From finished runs to numbers: summaries, means over seeds, and the paper's numbers beside them."""
