"""Readers that `ingest` and batch prediction share: files and databases as batches of rows."""
