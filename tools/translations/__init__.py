"""The words of the nodes in other languages: `python -m tools.translations` writes `locales/` anew.

`zh.json` and `ja.json` beside this file give for each English text its translation. A text that changes in a node is
missing there from then on, so that no translation grows old unseen.
"""
