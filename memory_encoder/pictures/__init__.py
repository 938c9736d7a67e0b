"""Latents to pictures and to a movie; frames as people count them to latents."""
