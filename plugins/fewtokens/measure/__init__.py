"""MACs, paired timing, memory, and the trade-off report."""
