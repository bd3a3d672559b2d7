"""Rows, labels and splits that differ between two revisions, and what the checks of their tables say."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import polars as pl

from flows.data_changes import Listing, Version, data_changes
from flows.reviewing.changed.param_changes import typed_params
from flows.reviewing.findings import ValidationChange
from flows.reviewing.revision import Revision
from stages.common.pii import mask_text
from stages.common.schemas import SPLITS
from stages.common.shown import Mask, shown

REJECTED = ("data/raw/rejected.parquet", "data/clean/rejected.parquet")
VALIDATION = "reports/validation"
TABLES = ("raw", *SPLITS, "augmented")  # in the order of the pipeline
NAME = 40  # characters of a revision's name


def mask_of(head: Revision) -> Mask | None:
    """Return what hides personal data in texts, unless the head's params say that its pages show them."""
    params = typed_params(head)
    if params and not params.evaluate.mask_pii:
        return None
    return partial(mask_text, phone_region=params.clean.pii.phone_region if params else None)


def row_changes(base: Revision, head: Revision, examples: int) -> tuple[tuple[Listing, ...] | None, list[str]]:
    """Compare the clean splits and the rejected rows of two revisions; texts are cut and masked.

    Returns:
        Tables for people, none where the data are the same, None where that cannot be seen; and what could not be
        compared, a line each.
    """
    was, now = _version(base), _version(head)
    if isinstance(was, Version) and isinstance(now, Version):
        return tuple(data_changes(was, now, examples, texts=True, mask=mask_of(head))), []
    without = [(path, revision.name) for path, revision in ((was, base), (now, head)) if isinstance(path, str)]
    return None, [f"{path} of {name} is not there or not readable: rows cannot be compared" for path, name in without]


def _version(revision: Revision) -> Version | str:
    """Return the rows of a revision, or the path of the table that they cannot be read from."""
    rows, rejected = [], []
    for split in SPLITS:
        path = f"data/clean/{split}.parquet"
        table = _columns(revision, path, ("id", "text", "label"), ("fold",))
        if table is None:
            return path
        rows.append(table.with_columns(split=pl.lit(split)))
    for path in REJECTED:
        table = _columns(revision, path, ("id", "stage", "rule"))
        if table is None:
            return path
        rejected.append(table)
    return Version(shown(revision.name, NAME), pl.concat(rows, how="diagonal"), pl.concat(rejected))


def _columns(
    revision: Revision, path: str, needed: tuple[str, ...], optional: tuple[str, ...] = ()
) -> pl.DataFrame | None:
    table = revision.table(path)
    if table is None or not set(needed) <= set(table.columns):
        return None
    texts = [pl.col(name).cast(pl.String) for name in needed]
    return table.select(*texts, *(name for name in optional if name in table.columns))


def validation_changes(base: Revision, head: Revision) -> tuple[tuple[ValidationChange, ...], list[str]]:
    """Compare the checks of each table in two revisions.

    Returns:
        Tables whose reports differ, or that do not pass, in the order of the pipeline; and reports that are none.
    """
    names = {path.stem for revision in (base, head) for path in (revision.folder / VALIDATION).glob("*.json")}
    order = [*(name for name in TABLES if name in names), *sorted(names.difference(TABLES))]
    found, missing = [], []
    for name in order:
        was, now = (revision.report(f"{VALIDATION}/{name}.json") for revision in (base, head))
        try:
            change = ValidationChange(name, _passed(was), _passed(now), tuple(_notes(was, now)))
        except (KeyError, TypeError, ValueError, AttributeError):
            missing.append(f"{VALIDATION}/{name}.json is no report of checks in one of the two")
            continue
        if change.notes or change.before != change.now or change.now is False:
            found.append(change)
    return tuple(found), missing


def _passed(report: Mapping[str, Any]) -> bool | None:
    return bool(report["passed"]) if report else None


def _notes(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if was and now:
        if was["rows"] != now["rows"]:
            yield f"rows {was['rows']:,} → {now['rows']:,}"
        yield from _column_notes(was, now)
    before = _failing(was)
    for check, count in _failing(now).items():
        instead = f", {before[check]:,} before" if check in before else ""
        yield f"{check}: {count:,} rows fail{instead}"
    if now:
        yield from (
            f"{check}: no row fails, {count:,} before" for check, count in before.items() if check not in _failing(now)
        )


def _column_notes(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    old, new = was["columns"], now["columns"]
    for column in dict.fromkeys([*old, *new]):
        if column not in new or column not in old:
            yield f"{column}: {'a new column' if column in new else 'no such column any more'}"
            continue
        one, other = old[column], new[column]
        if one["dtype"] != other["dtype"]:
            yield f"{column}: {one['dtype']} → {other['dtype']}"
        empty = one["nulls"] == was["rows"] and other["nulls"] == now["rows"]  # a column that nobody fills
        if one["nulls"] != other["nulls"] and not empty:
            yield f"{column}: {one['nulls']:,} → {other['nulls']:,} nulls"


def _failing(report: Mapping[str, Any]) -> dict[str, int]:
    """Return how many rows fail each check, by column and check."""
    checks = report["checks"] if report else []
    return {f"{one['column']} {one['check']}": int(one["failing"]) for one in checks if one["failing"]}
