"""From the sources in params to `data/raw/`, `models/base/` and `models/resources/`.

A row of a CSV file passes `__main__`, `fetch`, `common/readers/tables`, `records`, `spool`, `common/schemas`.
"""
