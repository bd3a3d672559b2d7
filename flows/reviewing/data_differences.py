"""Rows, labels and splits that differ between two revisions, and what the checks of their tables say."""

from functools import partial
from typing import Any

import polars as pl

from flows.data_changes import Listing, Version, data_changes
from flows.reviewing.findings import ValidationChange
from flows.reviewing.revision import Revision
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params
from stages.common.pii import mask_text
from stages.common.recorded import differing
from stages.common.schemas import SPLITS
from stages.common.shown import Mask, shown

REJECTED = ("data/raw/rejected.parquet", "data/clean/rejected.parquet")
VALIDATION = "reports/validation"
TABLES = ("raw", *SPLITS, "augmented")  # in the order of the pipeline
NAME = 40  # characters of a revision's name


def typed_params(revision: Revision) -> Params | None:
    """Return the params of a revision; None if the code that runs here cannot read them: older code had other keys."""
    try:
        return check_params(revision.data)
    except (AttuneError, RecursionError):
        return None


def mask_of(head: Revision) -> Mask | None:
    """Return what hides personal data in texts, unless the head's params say that its pages show them."""
    params = typed_params(head)
    if params and not params.evaluate.mask_pii:
        return None
    return partial(mask_text, phone_region=params.clean.pii.phone_region if params else None)


def row_changes(base: Revision, head: Revision, examples: int, missing: list[str]) -> tuple[Listing, ...] | None:
    """Compare the clean splits and the rejected rows of two revisions; texts are cut and masked.

    Returns:
        Tables for people; none where the data are the same, None where that cannot be seen, which `missing` tells.
    """
    versions = [_version(revision, missing) for revision in (base, head)]
    old, new = versions
    return (
        None if old is None or new is None else tuple(data_changes(old, new, examples, texts=True, mask=mask_of(head)))
    )


def _version(revision: Revision, missing: list[str]) -> Version | None:
    try:
        rows = [
            _columns(revision, f"data/clean/{split}.parquet", ("id", "text", "label")).with_columns(split=pl.lit(split))
            for split in SPLITS
        ]
        rejected = [_columns(revision, path, ("id", "stage", "rule")) for path in REJECTED]
    except OSError as error:
        missing.append(f"{error} of {revision.name} is not there or not readable: rows cannot be compared")
        return None
    return Version(shown(revision.name, NAME), pl.concat(rows, how="diagonal"), pl.concat(rejected))


def _columns(revision: Revision, path: str, needed: tuple[str, ...]) -> pl.DataFrame:
    table = revision.table(path)
    if table is None or not set(needed) <= set(table.columns):
        raise OSError(path)
    fold = ["fold"] if "fold" in table.columns else []
    return table.select(*(pl.col(name).cast(pl.String) for name in needed), *fold)


def validation_changes(base: Revision, head: Revision, missing: list[str]) -> tuple[ValidationChange, ...]:
    """Return the tables whose reports differ, or that do not pass, in the order of the pipeline."""
    names = {path.stem for revision in (base, head) for path in (revision.folder / VALIDATION).glob("*.json")}
    found = []
    for name in sorted(names, key=lambda name: (TABLES.index(name) if name in TABLES else len(TABLES), name)):
        reports = [revision.report(f"{VALIDATION}/{name}.json") for revision in (base, head)]
        try:
            old, new = map(_facts, reports)
        except (KeyError, TypeError, AttributeError):
            missing.append(f"{VALIDATION}/{name}.json is no report of checks in one of the two")
            continue
        notes = [f"{key}: {before or 'none'} → {now or 'none'}" for key, before, now in differing(old, new)]
        passed = [bool(report["passed"]) if report else None for report in reports]
        if notes or passed[0] != passed[1] or passed[1] is False:
            found.append(ValidationChange(name, passed[0], passed[1], tuple(notes if all(reports) else ())))
    return tuple(found)


def _facts(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a reviewer wants to know of a report; a column that nobody fills says nothing with its nulls."""
    if not report:
        return {}
    columns = {
        name: f"{one['dtype']}" + (f", {one['nulls']} nulls" if one["nulls"] != report["rows"] else "")
        for name, one in report["columns"].items()
    }
    failing = {
        f"{one['column']} {one['check']}": f"{one['failing']} rows fail" for one in report["checks"] if one["failing"]
    }
    return {"rows": report["rows"], "columns": columns, "checks": failing}
