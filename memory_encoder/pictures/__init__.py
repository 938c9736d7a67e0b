"""Latents to pictures and to a movie."""
