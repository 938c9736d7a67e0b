"""Judges finished films by what can be measured: which shot to make again, and how a film stands against others."""
