"""Video memory: compresses the whole history of a film into a few thousand tokens of a diffusion transformer."""
