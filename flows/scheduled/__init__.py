"""Where a scheduled run works, and where its results are."""
