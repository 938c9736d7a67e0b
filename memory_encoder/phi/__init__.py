"""The encoder phi: a clip's latents and its down-sampled copy to tokens of the host's width (Figure 3)."""
