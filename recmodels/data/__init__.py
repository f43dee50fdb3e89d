"""Interactions: read, numbered, split."""
