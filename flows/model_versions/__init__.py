"""Versions of a registered model: who made them, and how to make one again."""
