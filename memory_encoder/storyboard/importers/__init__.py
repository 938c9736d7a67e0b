"""One importer for each form in which people write storyboards.

Each has `looks_like(text)`, whether a text is written in its form, and `parse(text, clock)`, which reads it or raises
StoryboardError. The first that recognises a text has the last word on it.
"""
