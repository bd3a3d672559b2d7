"""Parquet files of a commit under review, which may have been tampered with."""

from pathlib import Path
from typing import cast

import polars as pl


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a table that may be broken: over a byte, polars' own reader can end the whole process; Arrow's never did.

    Raises:
        OSError: if the file is no Parquet, or is broken.
    """
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        table = pyarrow.parquet.read_table(path)
        table.validate(full=True)
        return cast(pl.DataFrame, pl.from_arrow(table))
    except (Exception, pl.exceptions.PanicException):  # of invalid bytes, anything
        raise OSError(f"{path} is no Parquet file, or is broken") from None
