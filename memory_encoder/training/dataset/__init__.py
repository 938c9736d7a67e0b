"""Clips and captions as a cached dataset of latents."""
