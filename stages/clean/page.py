"""`reports/data.html`: what came in, what was done to it, what is left, on one page without scripts or network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.clean.timestamps import read_times
from stages.common.pages.environment import environment, fitted
from stages.common.schemas import SPLITS
from stages.common.shown import Mask

LIMIT = 200_000  # bytes of the page; with fewer examples, until it fits
LISTED = 20  # labels, sources
BINS = 30  # of the curves
DAY = 86_400_000_000  # microseconds

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
    """All that the page shows; tables have the schemas of their files.

    Args:
        changed: texts that each cleaning step changed.
        by_rule: rows that each rule in force rejected, those with none as well.
        rejected: rows that ingest and clean kept out.
        splits: the clean rows.
        suspects: by confidence.
        report: `reports/splits.json`.
        contract: `reports/validation/raw.json`.
        examples: texts shown per rule and of the suspects; 0: none at all.
    """

    changed: dict[str, int]
    by_rule: dict[str, int]
    rejected: pl.DataFrame
    splits: dict[str, pl.DataFrame]
    suspects: pl.DataFrame
    report: dict[str, Any]
    contract: dict[str, Any]
    examples: int


def render(page: PageData, mask: Mask | None = None) -> str:
    """Return the page, the same for the same data in any order of the rows.

    `mask` replaces personal data in whatever stems from the sources.
    """
    template = environment(Path(__file__).parent, mask).get_template("page.html.j2")
    fixed = {
        "SPLITS": SPLITS,
        "RULES": RULES,
        "CHECKS": CHECKS,
        "LISTED": LISTED,
        "page": page,
        "kept": sum(rows.height for rows in page.splits.values()),
        "sources": _sources(page.splits, page.rejected),
        "lengths": _lengths(page.splits),
        "times": _times(page.splits),
    }

    def with_examples(examples: int) -> str:
        suspects = page.suspects.head(examples).to_dicts()
        return template.render(**fixed, rules=_rules(page, examples), suspects=suspects, examples=examples)

    return fitted(with_examples, page.examples, LIMIT)


def _rules(page: PageData, examples: int) -> list[dict[str, Any]]:
    """Return the rules, ingest's first, each with its count and the first examples by id."""
    earlier = page.rejected.filter(pl.col("stage") != "clean").select("stage", "rule").unique().sort("stage", "rule")
    rules = []
    for stage, rule in [*earlier.iter_rows(), *(("clean", rule) for rule in page.by_rule)]:
        rows = page.rejected.filter(stage=stage, rule=rule)
        first = rows.bottom_k(examples, by="id").sort("id").to_dicts()
        rules.append({"rule": rule, "rows": rows.height, "examples": first})
    return rules


def _sources(splits: dict[str, pl.DataFrame], rejected: pl.DataFrame) -> dict[str, Any]:
    """Return the sources with the most rows kept: name, rows kept, rows rejected; and what the others kept."""
    kept = pl.concat([rows.select("source") for rows in splits.values()]).group_by("source").len("kept")
    out = rejected.group_by("source").len("out")
    counts = (
        kept.join(out, on="source", how="full", coalesce=True)
        .with_columns(pl.col("kept", "out").fill_null(0))
        .sort("kept", "out", "source", descending=[True, True, False])
    )
    others = counts[LISTED:]
    return {"rows": counts.head(LISTED).rows(), "others": others.height, "other_rows": int(others["kept"].sum())}


def _lengths(splits: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """Return the share of each split's rows per bin of length in characters; the longest hundredth is in the last."""
    values = {name: splits[name]["text"].str.len_chars().to_numpy() for name in SPLITS}
    longest = np.quantile(np.concatenate(list(values.values())), 0.99)
    # Whole numbers of characters per bin, or some bins would hold one length more than others.
    step = max(1, int(np.ceil((longest + 1) / BINS)))
    edges = np.append(np.arange(BINS) * step, np.inf)
    ticks = [*(f"{at * step:,}" for at in range(0, BINS, 6)), f"{BINS * step:,}+"]
    shares = {name: np.histogram(found, edges)[0] / max(1, len(found)) for name, found in values.items()}
    return {"ticks": ticks, "unit": "characters", **_curves(shares, "{:.1%} of a split's rows")}


def _times(splits: dict[str, pl.DataFrame]) -> dict[str, Any] | None:
    """Return the number of rows per bin of time, from the oldest to the newest; None without two different times."""
    values = {name: read_times(splits[name]["timestamp"])["time"].drop_nulls().to_physical() for name in SPLITS}
    whole = pl.concat(values.values())
    if whole.n_unique() < 2:
        return None
    first, last = int(whole.min()), int(whole.max())  # type: ignore[arg-type]
    marks = pl.Series(np.linspace(first, last, 6).astype(np.int64)).cast(pl.Datetime("us"))
    form = "%Y-%m" if last - first > 3 * 365 * DAY else "%Y-%m-%d" if last - first > 6 * DAY else "%m-%d %H:%M"
    edges = np.linspace(first, last, BINS + 1)
    counts = {name: np.histogram(found.to_numpy(), edges)[0] for name, found in values.items()}
    return {"ticks": marks.dt.strftime(form).to_list(), "unit": "time (UTC)", **_curves(counts, "{:,} rows of a split")}


def _curves(heights: dict[str, np.ndarray], form: str) -> dict[str, Any]:
    """Return the outline of each histogram as points of a polyline, 600 x 160; and what its highest bin means."""
    highest = max(found.max() for found in heights.values())
    width = 600 / BINS
    points = {}
    for name, found in heights.items():
        tops = 160 * (1 - 0.98 * found / highest)  # room for the line itself
        steps = (f"{at * width:.0f},{top:.1f} {(at + 1) * width:.0f},{top:.1f}" for at, top in enumerate(tops))
        points[name] = " ".join(steps)
    return {"points": points, "highest": form.format(highest)}
