"""What a method costs: the paper's accounting, FLOPs and parameters by rule, and measured time and memory."""
