"""Rows whose label looks wrong: who judges which, and what is done with those that the task doubts."""

import json

import numpy as np
import polars as pl

from stages.clean.split import assign_folds
from stages.common.digests import hash_order
from stages.common.errors import AttuneError
from stages.common.params.clean import CleanParams
from stages.common.schemas import SPLITS, Suspects
from stages.tasks.base import Task


def find_label_issues(splits: dict[str, pl.DataFrame], task: Task, params: CleanParams, seed: int) -> pl.DataFrame:
    """List the rows whose label looks wrong, in all splits, by confidence; none where the task knows no such thing.

    A row of train is judged by who saw no row of its fold (folds keep groups together); rows of validation and test by
    who saw train. Nothing of validation or test reaches what is said of train. Folds, and samples of large splits, are
    seeded; the rows (schema Suspects) are the same for any order of the splits' (schema CleanRecords).
    """
    settings = params.label_issues
    if settings.action == "off" or splits["train"].is_empty():
        return Suspects.empty()
    order = hash_order("id", f"{seed} suspects")
    samples = [
        (rows.sort(order, "id").head(settings.max_rows) if rows.height > settings.max_rows else rows).sort("id")
        for rows in (splits[name].with_columns(split=pl.lit(name)) for name in SPLITS)
    ]
    rows = pl.concat(samples)
    train = (rows["split"] == "train").to_numpy()
    fold = np.full(rows.height, -1)
    try:
        strata = samples[0].with_columns(stratum=task.strata(samples[0]["label"], params))
        fold[train] = assign_folds(strata, settings.folds, seed)
    except AttuneError:
        print(f"  no label is checked (clean.label_issues): train has fewer groups than {settings.folds} folds")
        return Suspects.empty()
    issues = task.label_issues(rows.with_columns(fold=pl.Series(fold)), params)
    if issues is None:
        print(f"  no label is checked (clean.label_issues): {task.name} offers no such check")
        return Suspects.empty()
    return issues.select(Suspects.columns()).sort("confidence", "id", descending=[True, False])


def apply_action(
    splits: dict[str, pl.DataFrame], issues: pl.DataFrame, action: str
) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """Do with the label issues (schema Suspects) what `clean.label_issues.action` says.

    `flag` writes `"suspect": "yes"` or `"no"` into the JSON of `extra`, behind its other keys; `reject` takes the rows
    out of train, unless no row of their label would be left. The splits are returned, and the rows of train that are
    out, with a `reason`.
    """
    none = splits["train"].clear().with_columns(reason=pl.lit(None, dtype=pl.String))
    if action == "flag":
        return {name: _flagged(rows, issues["id"]) for name, rows in splits.items()}, none
    if action != "reject":
        return splits, none
    reason = pl.format("the label looks wrong: {} has the probability {}", "suggested", pl.col("confidence"))
    reasons = issues.filter(split="train").select("id", reason=reason)
    train = splits["train"].join(reasons, on="id", how="left", maintain_order="left")
    spared = pl.col("reason").is_not_null().all().over("label")
    kept = pl.col("reason").is_null() | spared
    return {**splits, "train": train.filter(kept).drop("reason")}, train.filter(~kept)


def _flagged(rows: pl.DataFrame, flagged: pl.Series) -> pl.DataFrame:
    extras = []
    for extra, suspect in zip(rows["extra"], rows["id"].is_in(flagged.implode()), strict=True):
        others = {key: value for key, value in json.loads(extra or "{}").items() if key != "suspect"}
        others["suspect"] = "yes" if suspect else "no"
        extras.append(json.dumps(others, ensure_ascii=False, separators=(",", ":")))
    return rows.with_columns(extra=pl.Series(extras, dtype=pl.String))
