"""Where a model comes from, and how to have it again."""
