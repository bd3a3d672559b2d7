"""Columns of texts: repair, PII, near duplicates."""
