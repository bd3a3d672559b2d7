"""`reports/data.html`: what came in, what was done to it, what is left, on one page without scripts or network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.display import Mask
from stages.common.pages.templates import environment, fitted
from stages.common.schemas import SPLITS

LIMIT = 200_000  # bytes of the page; with fewer examples, until it fits
LISTED = 20  # labels, sources


@dataclass(frozen=True)
class PageData:
    """All that the page shows; tables have the schemas of their files."""

    changed: dict[str, int]  # texts, by step
    by_rule: dict[str, int]  # rows that each rule in force rejected, those with none as well
    rejected: pl.DataFrame  # by ingest and by clean
    splits: dict[str, pl.DataFrame]
    label_issues: pl.DataFrame
    report: dict[str, Any]  # reports/splits.json
    contract: dict[str, Any]  # reports/validation/raw.json
    examples: int  # texts shown per rule and of the label issues; 0: none at all


def render(page: PageData, mask: Mask | None = None) -> str:
    """Return the page, the same for the same data in any order of the rows.

    `mask` replaces personal data in whatever stems from the sources.
    """
    template = environment(Path(__file__).parent, mask).get_template("page.html.j2")

    def with_examples(examples: int) -> str:
        return template.render(
            SPLITS=SPLITS,
            LISTED=LISTED,
            page=page,
            kept=sum(rows.height for rows in page.splits.values()),
            sources=_sources(page.splits, page.rejected),
            rules=_rules(page, examples),
            label_issues=page.label_issues.head(examples).to_dicts(),
            examples=examples,
        )

    return fitted(with_examples, page.examples, LIMIT)


def _rules(page: PageData, examples: int) -> list[dict[str, Any]]:
    """Return the rules, ingest's first, each with its count and the first examples by id."""
    earlier = page.rejected.filter(pl.col("stage") != "clean").select("stage", "rule").unique().sort("stage", "rule")
    rules = []
    for stage, rule in [*earlier.iter_rows(), *(("clean", rule) for rule in page.by_rule)]:
        rows = page.rejected.filter(stage=stage, rule=rule)
        first = rows.bottom_k(examples, by="id").sort("id").to_dicts()
        rules.append({"stage": stage, "rule": rule, "rows": rows.height, "examples": first})
    return rules


def _sources(splits: dict[str, pl.DataFrame], rejected: pl.DataFrame) -> dict[str, Any]:
    """Return the sources with the most rows kept: name, rows kept, rows rejected; and what the others kept."""
    counted = [rows.select("source", kept=pl.lit(1), out=pl.lit(0)) for rows in splits.values()]
    counted.append(rejected.select("source", kept=pl.lit(0), out=pl.lit(1)))
    counts = pl.concat(counted).group_by("source").sum().sort("kept", "out", "source", descending=[True, True, False])
    others = counts[LISTED:]
    return {"rows": counts.head(LISTED).rows(), "others": others.height, "other_rows": int(others["kept"].sum())}
