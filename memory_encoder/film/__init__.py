"""The autoregressive loop of a film, and what it leaves on disk."""
