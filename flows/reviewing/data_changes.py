"""What differs between two versions of the clean data: rows by id, labels, splits, and what the rules rejected."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import polars as pl

from stages.common.display import Mask, display
from stages.common.errors import AttuneError
from stages.common.schemas import SPLITS

REJECTED = ("data/raw/rejected.parquet", "data/clean/rejected.parquet")
LABELS = 20  # listed, those that changed most
WIDTH = 100  # characters shown of a text
NAME = 40  # of a label, a revision


@dataclass(frozen=True)
class Version:
    """The data of one revision.

    Args:
        name: the revision, or `workspace`.
        rows: id, text, label, fold (null: none) and split of every row that was kept.
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


def read_version(name: str, opened: Callable[[str], BinaryIO]) -> Version:
    """Read the clean splits and the rejected rows of a revision, whose files are opened by their path in the project.

    Raises:
        AttuneError: if a file is not what the pipeline writes.
    """

    def read(path: str, *columns: str) -> pl.DataFrame:
        with opened(path) as file:
            try:
                table = pl.read_parquet(file)
                return table.select(*columns, *(["fold"] if "fold" in table.columns else []))
            except pl.exceptions.PolarsError as error:
                raise AttuneError(f"{path} is no table of Attune's: {str(error).splitlines()[0]}") from None

    splits = [read(f"data/clean/{split}.parquet", "id", "text", "label") for split in SPLITS]
    named = [rows.with_columns(split=pl.lit(split)) for rows, split in zip(splits, SPLITS, strict=True)]
    older = [pl.lit(None, pl.Int16).alias("fold")] if "fold" not in named[0].columns else []
    rejected = [read(path, "id", "stage", "rule") for path in REJECTED]
    return Version(display(name, NAME), pl.concat(named).with_columns(older), pl.concat(rejected))


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
    was = base.rows.select("id", was_label="label", was_split="split", was_fold="fold")
    both = head.rows.join(was, on="id")
    added, removed = _only_in(head, base), _only_in(base, head)
    relabelled = both.filter(pl.col("label") != pl.col("was_label"))
    moved = both.filter(pl.col("split") != pl.col("was_split"))
    refolded = both.filter(pl.col("split") == pl.col("was_split"), pl.col("fold").ne_missing(pl.col("was_fold")))
    rules = _rules(base, head)
    changed = any(rows.height for rows in (added, removed, relabelled, moved, refolded))
    if not changed and all(row[-1] == "–" for row in rules):
        return []

    def listed(title: str, rows: pl.DataFrame, **columns: str) -> Listing:
        named = {"id": "id", **columns, **({"text": "text"} if texts else {})}
        first = rows.sort("id").head(examples).select(pl.col(column).alias(name) for name, column in named.items())
        cells = [
            [
                display(cell, WIDTH, mask) if name == "text" else display(None if cell is None else str(cell), NAME)
                for name, cell in row.items()
            ]
            for row in first.to_dicts()
        ]
        return Listing(f"{title}: {rows.height:,}", first.columns, cells)

    listings = [
        _splits(base, head, added, removed, relabelled, moved),
        _labels(base, head),
        Listing("Rejected", ("stage", "rule", base.name, head.name, "change"), rules),
        listed("Added", added, split="split", label="label", before="rule"),
        listed("Removed", removed, split="split", label="label", now="rule"),
        listed("Relabelled", relabelled, split="split", **{"from": "was_label", "to": "label"}),
        listed("Moved to another split", moved, **{"from": "was_split", "to": "split"}, label="label"),
    ]
    fold = listed("Another fold", refolded, split="split", **{"from": "was_fold", "to": "fold"})
    return [*listings, *([fold] if fold.rows else [])]


def _only_in(one: Version, other: Version) -> pl.DataFrame:
    """Return the rows that the other version lacks, with the rule by which that rejected them."""
    rules = other.rejected.select("id", "rule").unique("id", keep="first")
    rows = one.rows.join(other.rows, on="id", how="anti").join(rules, on="id", how="left")
    return rows.with_columns(pl.col("rule").fill_null("not in the sources"))


def _splits(base: Version, head: Version, *changes: pl.DataFrame) -> Listing:
    added, removed, relabelled, moved = changes
    counts = [
        [
            *(rows.filter(split=name).height for rows in (base.rows, head.rows, added, removed, relabelled, moved)),
            moved.filter(was_split=name).height,
        ]
        for name in SPLITS
    ]
    columns = ("split", base.name, head.name, "added", "removed", "relabelled", "in", "out")
    rows = [[str(name), *(f"{count:,}" for count in row)] for name, row in zip(SPLITS, counts, strict=True)]
    return Listing("Splits", columns, rows)


def _labels(base: Version, head: Version) -> Listing:
    """Count rows by label and split in both versions; labels that came or went are marked."""
    was, now = (_counts(version.rows, "label", "split") for version in (base, head))
    change: Counter[str] = Counter()
    for label, split in {**was, **now}:
        change[label] += abs(now[label, split] - was[label, split])
    rows = []
    for label in sorted(change, key=lambda label: (-change[label], label))[:LABELS]:
        old, new = ([counts[label, split] for split in SPLITS] for counts in (was, now))
        mark = " (new)" if not any(old) else " (lost)" if not any(new) else ""
        rows.append([display(label, NAME) + mark, *(f"{a:,} → {b:,}" for a, b in zip(old, new, strict=True))])
    more = f", the {LABELS} that changed most of {len(change):,}" if len(change) > LABELS else ""
    return Listing(f"Labels{more}", ("label", *SPLITS), rows)


def _rules(base: Version, head: Version) -> list[list[str]]:
    was, now = (_counts(version.rejected, "stage", "rule") for version in (base, head))
    return [
        [display(stage, NAME), display(rule, NAME), f"{old:,}", f"{new:,}", f"{new - old:+,}" if new != old else "–"]
        for stage, rule in sorted({**was, **now}, key=lambda key: (key[0] != "ingest", key[1]))
        for old, new in [(was[stage, rule], now[stage, rule])]
    ]


def _counts(rows: pl.DataFrame, *columns: str) -> Counter[tuple[str, str]]:
    return Counter({(one, other): count for one, other, count in rows.group_by(columns).len().iter_rows()})
