"""How two files or folders of one out differ, in a line: by what they hold where that can be read."""

import filecmp
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.common.display import display
from stages.common.pipeline.dvc_status import differing

NAME = 80  # characters shown of a name


def difference(old: Path, new: Path) -> str:
    """Return how two files or folders differ; nothing if and only if their bytes are the same."""
    if old.is_dir() and new.is_dir():
        names = {path.relative_to(top).as_posix() for top in (old, new) for path in top.rglob("*") if path.is_file()}
        found = [(name, how) for name in sorted(names) if (how := difference(old / name, new / name))]
        more = f" (and {len(found) - 1:,} more files)" if len(found) > 1 else ""
        return f"{display(found[0][0], NAME)}: {found[0][1]}{more}" if found else ""
    if not (old.is_file() and new.is_file()):
        return "only one of the two files is here"
    if filecmp.cmp(old, new, shallow=False):
        return ""
    sizes = f"other bytes ({old.stat().st_size:,} → {new.stat().st_size:,})"
    compare = KINDS.get(new.suffix)
    try:
        return (compare(old, new) if compare else "") or sizes
    except (Exception, pl.exceptions.PanicException):  # of a damaged file, anything
        return f"no readable {new.suffix[1:]} file, {sizes}"


def _rows(old: Path, new: Path) -> str:
    before, after = (pl.read_parquet(path, use_pyarrow=True) for path in (old, new))
    if before.schema != after.schema:
        names = sorted({name for name, _ in {*before.schema.items()} ^ {*after.schema.items()}})
        return f"other columns: {display(', '.join(names), NAME) or 'their order'}"
    if before.height != after.height:
        return f"{before.height:,} → {after.height:,} rows"
    other = pl.DataFrame({name: before[name].ne_missing(after[name]) for name in before.columns})
    columns = [name for name in other.columns if other[name].any()]
    rows = other.select(pl.any_horizontal(pl.all())).to_series().arg_true()
    where = f"first row {rows[0] + 1:,}, in {display(', '.join(columns), NAME)}" if columns else ""
    return f"{len(rows):,} of {before.height:,} rows differ, {where}" if columns else ""


def _tensors(old: Path, new: Path) -> str:
    import ml_dtypes  # noqa: F401  # teaches NumPy bfloat16
    from safetensors.numpy import load_file

    before, after = load_file(old), load_file(new)
    if other := sorted(before.keys() ^ after.keys()):
        return f"{len(other):,} tensors that only one has, first {display(other[0], NAME)}"
    apart: dict[str, float] = {}
    for name, was in before.items():
        now = after[name]
        if (was.dtype, was.shape) != (now.dtype, now.shape):
            return f"{display(name, NAME)}: {was.dtype}{list(was.shape)} → {now.dtype}{list(now.shape)}"
        if was.tobytes() != now.tobytes():
            by = abs(now.astype("float64") - was.astype("float64"))
            apart[name] = float(np.nan_to_num(by, nan=np.inf).max())
    if not apart:
        return ""
    most = max(apart, key=lambda name: apart[name])
    return f"{len(apart):,} of {len(before):,} tensors differ, by up to {apart[most]:.2g} ({display(most, NAME)})"


def _keys(old: Path, new: Path) -> str:
    before, after = (json.loads(path.read_text("utf-8")) for path in (old, new))
    keys: list[Any] = [key for key, _, _ in differing(before, after)]
    more = f" and {len(keys) - 1:,} more" if len(keys) > 1 else ""
    return f"{display(keys[0], NAME) or 'the whole'} differs{more}" if keys else ""


KINDS: dict[str, Callable[[Path, Path], str]] = {".parquet": _rows, ".safetensors": _tensors, ".json": _keys}
