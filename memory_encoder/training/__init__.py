"""Training of a memory encoder: the dataset cache, the trainer, and their commands."""
