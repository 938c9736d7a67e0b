"""Published checkpoints of trained histories, to files that core's loaders and ours read."""
