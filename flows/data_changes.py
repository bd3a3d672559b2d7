"""What differs between two versions of the clean data: rows by id, labels, splits, and what the rules rejected."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from stages.common.schemas import SPLITS
from stages.common.shown import Mask, shown

LABELS = 20  # listed, those that changed most
WIDTH = 100  # characters shown of a text
NAME = 40  # of a label


@dataclass(frozen=True)
class Version:
    """The data of one revision.

    Args:
        name: the revision, or `workspace`.
        rows: id, text, label and split of every row that was kept, and its fold where the revision has that column.
        rejected: id, stage and rule of every row that was not.
    """

    name: str
    rows: pl.DataFrame
    rejected: pl.DataFrame


@dataclass(frozen=True)
class Listing:
    """A table for people: on the terminal and in Markdown."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]]


def data_changes(
    base: Version, head: Version, examples: int, *, texts: bool = False, mask: Mask | None = None
) -> list[Listing]:
    """Return what differs, the same in any order of the rows; nothing, if no row, label, split, fold or rule does.

    An id is a hash of the row's texts, so a row whose text changed was removed, and another one added.

    Args:
        base: the older version.
        head: the newer one.
        examples: rows listed of each kind of change.
        texts: show the beginning of their texts too, which may hold personal data.
        mask: what hides these; None: nothing does.
    """
    added = _with_rule(head.rows.join(base.rows, on="id", how="anti"), base)
    removed = _with_rule(base.rows.join(head.rows, on="id", how="anti"), head)
    both = head.rows.join(base.rows.select("id", was_label="label", was_split="split"), on="id")
    relabelled = both.filter(pl.col("label") != pl.col("was_label"))
    moved = both.filter(pl.col("split") != pl.col("was_split"))
    refolded = _refolded(base, head)
    rules = _rules(base, head)
    if all(rows.is_empty() for rows in (added, removed, relabelled, moved, refolded)) and all(
        was == now for _, _, was, now in rules
    ):
        return []

    def listed(title: str, rows: pl.DataFrame, **columns: pl.Expr) -> Listing:
        first = rows.sort("id").head(examples)
        chosen = first.select("id", **columns, **({"text": pl.col("text")} if texts else {}))
        shown_rows = [
            [
                shown(cell, WIDTH, mask) if name == "text" else shown(None if cell is None else str(cell), NAME)
                for name, cell in row.items()
            ]
            for row in chosen.to_dicts()
        ]
        return Listing(f"{title}: {rows.height:,}", chosen.columns, shown_rows)

    split, label, reason = pl.col("split"), pl.col("label"), pl.col("rule")
    changes = [
        listed("Added", added, split=split, label=label, before=reason.fill_null("not in the sources")),
        listed("Removed", removed, split=split, label=label, now=reason.fill_null("not in the sources")),
        listed("Relabelled", relabelled, split=split, **{"from": pl.col("was_label"), "to": label}),
        listed("Moved to another split", moved, **{"from": pl.col("was_split"), "to": split}, label=label),
    ]
    if not refolded.is_empty():
        changes.append(
            listed("Another fold", refolded, split=split, **{"from": pl.col("was_fold"), "to": pl.col("fold")})
        )
    return [
        _splits(base, head, added, removed, relabelled, moved),
        _labels(base, head),
        Listing("Rejected", ("stage", "rule", base.name, head.name, "change"), [_counted(*row) for row in rules]),
        *changes,
    ]


def _refolded(base: Version, head: Version) -> pl.DataFrame:
    """Return rows of both versions in the same split whose fold differs; none, if a version has no such column."""
    if "fold" not in base.rows.columns or "fold" not in head.rows.columns:
        return head.rows.clear()
    both = head.rows.join(base.rows.select("id", "split", was_fold="fold"), on=("id", "split"))
    return both.filter(pl.col("fold").ne_missing(pl.col("was_fold")))


def _with_rule(rows: pl.DataFrame, other: Version) -> pl.DataFrame:
    """Tell of rows that the other version lacks by which rule it rejected them, if it had them at all."""
    return rows.join(other.rejected.select("id", "rule").unique("id", keep="first"), on="id", how="left")


def _splits(base: Version, head: Version, *changes: pl.DataFrame) -> Listing:
    added, removed, relabelled, moved = changes
    counts = [
        [
            name,
            *(version.rows.filter(split=name).height for version in (base, head)),
            *(rows.filter(split=name).height for rows in (added, removed, relabelled)),
            moved.filter(split=name).height,
            moved.filter(was_split=name).height,
        ]
        for name in SPLITS
    ]
    columns = ("split", base.name, head.name, "added", "removed", "relabelled", "in", "out")
    return Listing("Splits", columns, [[str(name), *(f"{count:,}" for count in row)] for name, *row in counts])


def _labels(base: Version, head: Version) -> Listing:
    """Count rows by label and split in both versions; labels that came or went are marked."""
    counts = [
        version.rows.group_by("label", "split").agg(pl.len().cast(pl.Int64).alias(name))
        for name, version in (("was", base), ("is", head))
    ]
    table = counts[0].join(counts[1], on=("label", "split"), how="full", coalesce=True).fill_null(0)
    changed = (
        table.group_by("label")
        .agg(pl.col("was", "is").sum(), change=(pl.col("is") - pl.col("was")).abs().sum())
        .sort("change", "label", descending=[True, False])
    )
    cells = {
        (label, split): (was, now) for label, split, was, now in table.select("label", "split", "was", "is").iter_rows()
    }
    rows = []
    for label, was, now, _ in changed.head(LABELS).iter_rows():
        mark = " (new)" if not was else " (lost)" if not now else ""
        pairs = [cells.get((label, split), (0, 0)) for split in SPLITS]
        rows.append([shown(label, NAME) + mark, *(f"{one:,} → {other:,}" for one, other in pairs)])
    more = f", the {LABELS} that changed most of {changed.height:,}" if changed.height > LABELS else ""
    return Listing(f"Labels{more}", ("label", *SPLITS), rows)


def _rules(base: Version, head: Version) -> list[tuple[str, str, int, int]]:
    counts = [version.rejected.group_by("stage", "rule").len(name) for name, version in (("was", base), ("is", head))]
    table = counts[0].join(counts[1], on=("stage", "rule"), how="full", coalesce=True).fill_null(0)
    return list(table.sort(pl.col("stage") != "ingest", "rule").select("stage", "rule", "was", "is").iter_rows())


def _counted(stage: str, rule: str, was: int, now: int) -> list[str]:
    return [shown(stage, NAME), shown(rule, NAME), f"{was:,}", f"{now:,}", f"{now - was:+,}" if now != was else "–"]
