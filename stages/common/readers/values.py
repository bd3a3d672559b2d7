"""Values as text, the same whatever format or database they come from."""

import json
from collections.abc import Iterable
from typing import Any

import polars as pl

CELL = 16  # bytes that polars needs for a text besides its characters


def as_text(value: Any) -> str | None:
    """Return a text as it is, other values as JSON has them, and null for what is empty.

    A lone surrogate, which JSON can spell and drivers may pass on, is replaced: it is no character.
    """
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")


def as_texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the columns as text, empty ones as null."""
    return frame.select(pl.all().cast(pl.String).replace("", None))


def text_bytes(frame: pl.DataFrame) -> int:
    """Return the bytes that a table of texts needs."""
    if not frame.width:
        return 0
    texts = frame.select(pl.all().str.len_bytes().cast(pl.Int64).sum()).row(0)
    return sum(size or 0 for size in texts) + CELL * frame.height * frame.width


def columns_of(frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Return some columns, each by its very name: to `select`, `*` and `^t.*$` are patterns."""
    return pl.DataFrame({name: frame.get_column(name) for name in names})
