"""The one room that reaches into ComfyUI: folders, managed models, sampling, progress and training."""
