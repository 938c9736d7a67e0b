"""ComfyUI nodes: widgets in, library call, progress out."""
