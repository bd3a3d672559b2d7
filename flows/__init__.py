"""When and where the pipeline happens; stages know nothing of it."""
