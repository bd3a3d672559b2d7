"""Searches and cross-validations: trials, their params and their scores."""
