"""Where the shipped workflows come from: `python -m tools.workflows` writes all of `workflows/` anew.

Each workflow is described here as nodes, groups and notes; the real frontend makes the two files of it, so that what is
shipped is what ComfyUI itself would save. Run it after a node got an input.
"""
