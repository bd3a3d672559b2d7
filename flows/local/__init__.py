"""The services of one machine."""
