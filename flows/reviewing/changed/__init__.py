"""What differs between two commits: params, stages, code, versions, data."""
