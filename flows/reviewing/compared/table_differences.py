"""How two tables differ, in a line: columns, rows that only one has, the first row with another value."""

from collections.abc import Sequence

import polars as pl

from flows.reviewing.compared.value_change import value_change
from stages.common.shown import shown

KEY = "id"  # rows are matched by it where both tables have it and it is unique; else by their number
NAME = 60  # characters shown of a column or an id
NAMES = 3  # columns told of


def table_difference(old: pl.DataFrame, new: pl.DataFrame) -> str:
    """Return how the content of two tables differs; nothing if it does not."""
    shared = [name for name in old.columns if name in new.columns and old.schema[name] == new.schema[name]]
    told = _columns(old, new)
    if not _is_key(old) or not _is_key(new):
        if old.height != new.height:
            told.append(f"{old.height:,} → {new.height:,} rows")
        both = min(old.height, new.height)
        return ", ".join(told + _values(old.head(both).select(shared), new.head(both).select(shared)))
    gone, added = old.join(new, on=KEY, how="anti"), new.join(old, on=KEY, how="anti")
    for rows, what in ((gone, "gone"), (added, "new")):
        if rows.height:
            told.append(f"{_rows(rows.height)} {what} (the first: {_name(rows[KEY][0])})")
    before = old.join(new, on=KEY, how="semi", maintain_order="left")
    after = new.join(old, on=KEY, how="semi", maintain_order="left")
    if before[KEY].to_list() != after[KEY].to_list():
        told.append("in another order")
        after = before.select(KEY).join(after, on=KEY, how="left", maintain_order="left")
    return ", ".join(told + _values(before.select(shared), after.select(shared)))


def _columns(old: pl.DataFrame, new: pl.DataFrame) -> list[str]:
    told = []
    for names, what in (
        ([name for name in old.columns if name not in new.columns], "gone"),
        ([name for name in new.columns if name not in old.columns], "new"),
        ([name for name, kind in old.schema.items() if new.schema.get(name, kind) != kind], "of another type"),
    ):
        if names:
            told.append(f"{'column' if len(names) == 1 else 'columns'} {_listed(names)} {what}")
    if not told and old.columns != new.columns:
        told.append("columns in another order")
    return told


def _values(old: pl.DataFrame, new: pl.DataFrame) -> list[str]:
    """Return how many rows of two tables of the same columns have other values, and the first of them."""
    others = pl.DataFrame({name: old[name].ne_missing(new[name]) for name in old.columns})
    if not others.width or not (differing := others.select(pl.any_horizontal(pl.all())).to_series()).any():
        return []
    first = int(differing.arg_max() or 0)
    columns = [name for name in others.columns if others[name][first]]
    where = f"id {_name(old[KEY][first])}" if _is_key(old) else f"row {first + 1}"
    change = value_change(*(_value(table[columns[0]], first) for table in (old, new)))
    more = f" and in {len(columns) - 1} more columns" if len(columns) > 1 else ""
    count = int(differing.sum())
    verb = "differs" if count == 1 else "differ"
    return [f"{count:,} of {_rows(old.height)} {verb}, first {where}, {_name(columns[0])}: {change}{more}"]


def _value(column: pl.Series, at: int) -> object:
    value = column[at]
    return value.to_list() if isinstance(value, pl.Series) else value


def _is_key(table: pl.DataFrame) -> bool:
    return KEY in table.columns and not table[KEY].null_count() and table[KEY].n_unique() == table.height


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def _name(name: object) -> str:
    return shown(str(name), NAME)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMES
    return ", ".join(map(_name, names[:NAMES])) + (f" and {more} more" if more > 0 else "")
