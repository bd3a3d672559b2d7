"""The frame of a stage: the graph that names its files, what DVC recorded of it, and how it starts, checks and ends."""
