"""What people read of a run: its reports, its summary, and an artifact and an event for Prefect."""
