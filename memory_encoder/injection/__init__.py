"""How a host reads a memory, through ComfyUI's public patch points."""
