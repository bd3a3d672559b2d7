"""The parts of a review: two revisions of the project side by side, and one of them made again from nothing."""
