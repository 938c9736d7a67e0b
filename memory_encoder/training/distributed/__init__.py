"""Training on several processes: weights in parts, and what that asks of a host's blocks."""
