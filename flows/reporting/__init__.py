"""What people are told of a run: logs without secrets, its summary, its rival."""
