"""The model in variants that serve faster, compared with the original."""
