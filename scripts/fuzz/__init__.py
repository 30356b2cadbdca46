"""Schemathesis, and what it cannot know about this API by its document."""
