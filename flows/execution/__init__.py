"""A run of the pipeline: its stages as tasks, and the process of each."""
