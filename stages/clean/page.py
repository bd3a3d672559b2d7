"""`reports/data.html`: what came in, what was done to it, what is left, on one page without scripts or network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from stages.clean import plots
from stages.common.pages.environment import environment, fitted
from stages.common.schemas import SPLITS
from stages.common.shown import Mask

LIMIT = 200_000  # bytes of the page; with fewer examples, until it fits
LISTED = 20  # labels, sources
WARNED = 10

RULES = {
    "unmapped_label": "The label is not in ingest.labels.",
    "not_drawn": "ingest.limit keeps fewer rows.",
    "empty_text": "Nothing is left of the text.",
    "unlabelled": "There is no label.",
    "length": "Shorter or longer than clean.length.",
    "language": "In none of the languages of clean.languages.",
    "unreadable_timestamp": "The time is missing or cannot be read.",
    "contaminated": "Nearly the same as a text that no row may equal.",
    "conflicting_labels": "The same text stands under several labels.",
    "exact_duplicate": "The same text as a row that stays.",
    "near_duplicate": "Nearly the same text as a row that stays.",
    "label_issue": "The label looks wrong, and clean.label_issues.action is reject.",
}
CHECKS = {
    "is_there": "The column is missing",
    "not_null": "No value",
    "not_blank": "Nothing but blanks",
    "unique": "The same value more than once",
    "no_lost_characters": "Characters lost to an earlier program (U+FFFD)",
}


@dataclass(frozen=True)
class PageData:
    """All that the page tells of.

    Args:
        changed: texts that each cleaning step changed.
        by_rule: rows that each rule in force rejected, those with none as well.
        rejected: rows that ingest and clean kept out, schema Rejected.
        splits: schema CleanRecords.
        suspects: schema Suspects, the surest first.
        split_report: what `leaks.split_report` returned.
        drift: what `drift.split_drift` returned.
        raw_validation: the raw records held against TrainableRecords.
        examples: texts shown per rule and of the suspects; 0: none at all.
    """

    changed: dict[str, int]
    by_rule: dict[str, int]
    rejected: pl.DataFrame
    splits: dict[str, pl.DataFrame]
    suspects: pl.DataFrame
    split_report: dict[str, Any]
    drift: list[dict[str, Any]]
    raw_validation: dict[str, Any]
    examples: int


def render(page: PageData, mask: Mask | None = None) -> str:
    """Return the page, the same for the same data in any order of the rows.

    Args:
        page: what it tells of.
        mask: replaces personal data in whatever stems from the sources.
    """
    templates = environment(Path(__file__).parent, mask)
    templates.globals.update(RULES=RULES, CHECKS=CHECKS, SPLITS=SPLITS)
    template = templates.get_template("page.html.j2")
    fixed = {
        "splits": {name: page.splits[name].height for name in SPLITS},
        "kept": sum(rows.height for rows in page.splits.values()),
        "described": page.split_report["splits"],
        "shared": page.split_report["shared"],
        "warnings": page.split_report["warnings"][:WARNED],
        "near_from": page.split_report["near_duplicates_from"],
        "changed": page.changed,
        "rejected": page.rejected.height,
        "folds": _folds(page.splits),
        "labels": _labels(page.split_report["splits"]),
        "sources": _sources(page.splits, page.rejected),
        "lengths": plots.lengths(page.splits),
        "times": plots.times(page.splits),
        "drift": page.drift,
        "contract": page.raw_validation,
        "suspected": page.suspects.height,
    }

    def with_examples(examples: int) -> str:
        return template.render(
            **fixed,
            rules=_rules(page, examples),
            suspects=page.suspects.head(examples).to_dicts(),
            examples=examples,
            asked=page.examples,
        )

    return fitted(with_examples, page.examples, LIMIT)


def _rules(page: PageData, examples: int) -> list[dict[str, Any]]:
    """Return the rules, ingest's first, each with its count and the first examples by id."""
    found = {
        (row["stage"], row["rule"]): row["len"] for row in page.rejected.group_by("stage", "rule").len().to_dicts()
    }
    order = [key for key in sorted(found) if key[0] != "clean"] + [("clean", rule) for rule in page.by_rule]
    order += [key for key in sorted(found) if key not in order]
    return [
        {
            "stage": stage,
            "rule": rule,
            "rows": found.get((stage, rule), 0),
            "examples": page.rejected.filter(stage=stage, rule=rule).bottom_k(examples, by="id").sort("id").to_dicts()
            if examples
            else [],
        }
        for stage, rule in order
    ]


def _labels(described: dict[str, Any]) -> dict[str, Any]:
    """Return the commonest labels of train with their rows and share in each split, and what the others are."""
    listed = [entry["label"] for entry in described["train"]["labels"][:LISTED]]
    rows = [
        {
            "label": label,
            "splits": {
                name: next((entry for entry in described[name]["labels"] if entry["label"] == label), None)
                for name in SPLITS
            },
        }
        for label in listed
    ]
    train = described["train"]
    labels = len(train["labels"]) + train["other_labels"]["labels"]
    widest = max((entry["share"] for name in SPLITS for entry in described[name]["labels"]), default=1.0)
    return {"rows": rows, "others": labels - len(listed), "widest": widest or 1.0}


def _folds(splits: dict[str, pl.DataFrame]) -> dict[int, int]:
    folds = pl.concat([splits[name]["fold"] for name in SPLITS if name != "test"]).drop_nulls()
    return dict(folds.value_counts().sort("fold").iter_rows())


def _sources(splits: dict[str, pl.DataFrame], rejected: pl.DataFrame) -> dict[str, Any]:
    """Return the sources with the most rows kept: name, rows kept, rows rejected; and what the others kept."""
    kept = pl.concat([rows.select("source") for rows in splits.values()]).group_by("source").len("kept")
    out = rejected.group_by("source").len("out")
    counts = (
        kept.join(out, on="source", how="full", coalesce=True)
        .with_columns(pl.col("kept", "out").fill_null(0))
        .sort("kept", "out", "source", descending=[True, True, False])
    )
    listed = counts.head(LISTED)
    return {
        "rows": list(listed.iter_rows()),
        "others": counts.height - listed.height,
        "other_rows": int(counts["kept"].sum()) - int(listed["kept"].sum()),
    }
