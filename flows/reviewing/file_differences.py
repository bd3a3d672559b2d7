"""How two files or folders differ, in a line: by what they hold where that can be read, else by their bytes."""

import json
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import polars as pl

from flows.reviewing.revision import read_parquet
from stages.common.pii import mask_text
from stages.common.recorded import differing
from stages.common.shown import shown

KEY = "id"  # rows are matched by it where both tables have it and it is unique; else by their number
VALUE, NAME = 40, 80  # characters shown of a value, of a name
CHUNK = 2**20


def difference(old: Path, new: Path) -> str:
    """Return how two files or folders differ; nothing if and only if their bytes are the same."""
    for path, which in ((old, "old"), (new, "new")):
        if not path.exists():
            return f"the {which} one is not there" if old.exists() or new.exists() else ""
    if old.is_dir() != new.is_dir():
        return "one is a folder, the other a file"
    if old.is_dir():
        return _folder_difference(old, new)
    at = _first_other_byte(old, new)
    if at < 0:
        return ""
    place = f"{old.stat().st_size:,} → {new.stat().st_size:,} bytes, the first other one is byte {at + 1:,}"
    read, compare = KINDS.get(new.suffix.lower(), (None, None))
    if read is None or compare is None:
        return place
    try:
        return compare(read(old), read(new)) or f"the same content in other bytes; {place}"
    except (Exception, pl.exceptions.PanicException):  # of a damaged file, anything
        return f"no readable {new.suffix[1:]} file, or one that cannot be compared; {place}"


def table_difference(old: pl.DataFrame, new: pl.DataFrame) -> str:
    """Return which columns and rows of two tables differ; nothing if none does."""
    if old.schema != new.schema:
        both = {*old.schema.items()} & {*new.schema.items()}
        columns = sorted({*old.columns, *new.columns} - {name for name, _ in both})
        return f"columns with another name, type or place: {shown(', '.join(columns), NAME)}".rstrip(": ")
    if not all(KEY in table.columns and table[KEY].is_unique().all() for table in (old, new)):
        old, new = (table.with_row_index(KEY, 1) if KEY not in table.columns else table for table in (old, new))
    if old[KEY].to_list() != new[KEY].to_list():
        gone, added = (set(one[KEY]) - set(other[KEY]) for one, other in ((old, new), (new, old)))
        first = shown(str(next(iter(sorted(gone | added, key=str)), "")), NAME)
        return f"{len(gone):,} rows gone, {len(added):,} new, first id {first}" if first else "rows in another order"
    other = pl.DataFrame({name: old[name].ne_missing(new[name]) for name in old.columns})
    rows = other.select(pl.any_horizontal(pl.all())).to_series().arg_true()
    if rows.is_empty():
        return ""
    at = int(rows[0])
    name = next(name for name in other.columns if other[name][at])
    where = f"first id {shown(str(old[KEY][at]), NAME)}, {shown(name, NAME)}"
    return f"{len(rows):,} of {old.height:,} rows differ, {where}: {_change(old[name][at], new[name][at])}"


def tensor_difference(old: Any, new: Any) -> str:
    """Return the largest difference between the tensors of two open safetensors files; nothing if there is none."""
    if other := sorted(set(old.keys()) ^ set(new.keys())):
        return f"{len(other):,} tensors that only one has, first {shown(other[0], NAME)}"
    apart: dict[str, float] = {}
    for name in old.keys():  # noqa: SIM118  # of an open file, no dict
        before, after = old.get_tensor(name), new.get_tensor(name)
        if (before.dtype, before.shape) != (after.dtype, after.shape):
            return f"{shown(name, NAME)}: {before.dtype}{list(before.shape)} → {after.dtype}{list(after.shape)}"
        if before.tobytes() != after.tobytes():
            by = abs(after.astype("float64") - before.astype("float64"))
            apart[name] = float(by.max()) if by.max() == by.max() else float("inf")  # NaN is the largest of all
    if not apart:
        return ""
    most = max(apart, key=lambda name: apart[name])
    return f"{len(apart):,} of {len(old.keys()):,} tensors differ, by up to {apart[most]:.2g} ({shown(most, NAME)})"


def json_difference(old: Any, new: Any) -> str:
    """Return the first key of two JSON values with another value; nothing if there is none."""
    other = list(differing({"": old}, {"": new}))
    more = f" and {len(other) - 1:,} more" if len(other) > 1 else ""
    key, before, now = other[0] if other else ("", None, None)
    return f"{shown(key.removeprefix('.'), NAME) or 'the whole'}: {_change(before, now)}{more}" if other else ""


def _line_difference(old: str, new: str) -> str:
    lines = enumerate(zip_longest(old.split("\n"), new.split("\n")), 1)
    return next((f"the first other line is line {at:,}" for at, (before, now) in lines if before != now), "")


def _folder_difference(old: Path, new: Path) -> str:
    """Return which files of two folders only one has, else the first that differs and how."""
    before, after = (
        {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()} for top in (old, new)
    )
    if before != after:
        return f"files that only one has: {shown(', '.join(sorted(before ^ after)), NAME)}"
    found = ((name, difference(old / name, new / name)) for name in sorted(before))
    other = [(name, how) for name, how in found if how]
    more = f" (and {len(other) - 1:,} more files)" if len(other) > 1 else ""
    return f"{shown(other[0][0], NAME)}: {other[0][1]}{more}" if other else ""


def _first_other_byte(old: Path, new: Path) -> int:
    """Return the place of the first byte that differs, or where the shorter file ends; -1: they are the same."""
    with old.open("rb") as before, new.open("rb") as after:
        place = 0
        while (one := before.read(CHUNK)) == (other := after.read(CHUNK)):
            if not one:
                return -1
            place += len(one)
    both = zip(one, other, strict=False)
    return place + next((at for at, (was, now) in enumerate(both) if was != now), min(len(one), len(other)))


def _change(old: Any, new: Any) -> str:
    """Return both values, masked and cut; of long texts, from a little before the first character that differs."""
    texts = [str(value.to_list() if isinstance(value, pl.Series) else value) for value in (old, new)]
    masked = [mask_text(text, None) for text in texts]
    first = next((at for at, (was, now) in enumerate(zip(*masked, strict=False)) if was != now), 0)
    start = max(0, first - VALUE // 2)
    return " → ".join(f"'{'…' if start else ''}{shown(text[start:], VALUE)}'" for text in masked)


def _open_tensors(path: Path) -> Any:
    import ml_dtypes  # noqa: F401  # teaches NumPy bfloat16
    from safetensors import safe_open

    return safe_open(path, framework="numpy")


TEXT: tuple[Callable[[Path], Any], Callable[[Any, Any], str]] = (lambda path: path.read_text("utf-8"), _line_difference)
KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Any, Any], str]]] = {
    ".parquet": (read_parquet, table_difference),
    ".csv": (lambda path: pl.read_csv(path, infer_schema=False), table_difference),  # 0.50 and 0.5 are two values
    ".json": (lambda path: json.loads(path.read_text("utf-8")), json_difference),
    ".safetensors": (_open_tensors, tensor_difference),
    **dict.fromkeys((".html", ".md", ".txt", ".yaml"), TEXT),
}
