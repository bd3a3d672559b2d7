"""The model in forms that serve faster, held against the original."""
