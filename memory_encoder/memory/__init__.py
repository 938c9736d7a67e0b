"""What phi makes of a film: the memory, its ends, cuts and joins, and the way from latents to memory."""
