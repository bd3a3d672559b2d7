"""prefect.yaml, and what a server has of it."""
