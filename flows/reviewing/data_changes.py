"""What differs between two versions of the clean data: rows by id, labels, splits, and what the rules rejected."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl
import polars.selectors as cs
from fsspec import AbstractFileSystem

from stages.common.display import Mask, display
from stages.common.errors import AttuneError
from stages.common.params import CleanParams
from stages.common.params.tasks import task_names
from stages.common.pipeline.graph import LOCK, parse_lock
from stages.common.schemas import SPLITS
from stages.tasks import FIRST, load_task
from stages.tasks.base import Task

REJECTED = ("data/raw/rejected.parquet", "data/clean/rejected.parquet")
LABELS = 20  # listed, those that changed most
WIDTH = 100  # characters shown of a text
NAME = 40  # of a label, a revision
PUSH = "where it was made: .venv/bin/dvc push; then here: .venv/bin/dvc fetch --all-commits. Or run it in a worktree"


class Version(NamedTuple):
    """The data of one revision."""

    name: str  # the revision, or `workspace`
    rows: pl.DataFrame  # id, text, label, fold (null: none) and split of every row that was kept
    rejected: pl.DataFrame  # id, stage and rule of every row that was not
    task: str = FIRST  # which reads the labels


class Listing(NamedTuple):
    """A table for people: on the terminal and in Markdown."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]]


def read_version(name: str, files: AbstractFileSystem) -> Version:
    """Read the clean splits and the rejected rows of a revision, by their paths in the project.

    Raises:
        AttuneError: if a file is missing, or not what the pipeline writes.
    """

    def read(path: str, *columns: str) -> pl.DataFrame:
        try:
            with files.open(path, "rb") as file:
                return pl.read_parquet(file).select(*columns, cs.by_name("fold", require_all=False))
        except FileNotFoundError:
            if files.exists(path):  # in dvc.lock
                what, fix = f"{path} of {name} is neither in DVC's cache nor in its remote", PUSH
            else:
                what, fix = f"{name} has no {path}", "make run; or take a revision whose dvc.lock lists it"
            raise AttuneError(what, fix) from None
        except (OSError, pl.exceptions.PolarsError) as error:
            raise AttuneError(f"{path} of {name} cannot be read: {str(error).splitlines()[0]}") from None

    columns = ("id", "text", "label")
    splits = [read(f"data/clean/{split}.parquet", *columns).with_columns(split=pl.lit(split)) for split in SPLITS]
    fold = pl.DataFrame(schema={"fold": pl.Int16})  # older versions have none
    rejected = pl.concat(read(path, "id", "stage", "rule") for path in REJECTED)
    return Version(display(name, NAME, None), pl.concat([*splits, fold], how="diagonal"), rejected, _task_of(files))


def _task_of(files: AbstractFileSystem) -> str:
    """Return the task that the clean data were made for, as dvc.lock has it."""
    try:
        lock = parse_lock(files.cat_file(LOCK).decode(errors="surrogateescape"))
        task = lock["clean"]["params"]["params.yaml"]["task"]
    except (OSError, AttuneError, KeyError, TypeError):  # it is older than tasks, or not what DVC writes
        task = FIRST
    return task if task in task_names() else FIRST


def data_changes(
    base: Version, head: Version, examples: int, *, texts: bool = False, mask: Mask | None = None
) -> list[Listing]:
    """Return what differs, the same in any order of the rows; nothing, if no row, label, split, fold or rule does.

    An id is a hash of the row's texts, so a row whose text changed was removed, and another one added. So many examples
    are listed of each kind of change, if asked with `texts`, which may hold personal data that `mask` hides.
    """
    task = load_task(head.task if head.task == base.task else FIRST)
    old = base.rows.select("id", old_label="label", old_split="split", old_fold="fold")
    both = head.rows.join(old, on="id")
    added, removed = _only_in(head, base), _only_in(base, head)
    relabelled = both.filter(pl.col("label") != pl.col("old_label"))
    moved = both.filter(pl.col("split") != pl.col("old_split"))
    refolded = both.filter(pl.col("split") == pl.col("old_split"), pl.col("fold").ne_missing(pl.col("old_fold")))
    rules = _rules(base, head)
    same = all(rows.is_empty() for rows in (added, removed, relabelled, moved, refolded))
    if same and all(row[-1] == "–" for row in rules):
        return []

    def examples_of(title: str, rows: pl.DataFrame, **columns: str) -> Listing:
        named = {"id": "id", **columns, **({"text": "text"} if texts else {})}
        cells = {name: pl.col(column).cast(pl.String) for name, column in named.items()}
        first = rows.sort("id").head(examples).select(**cells)
        cuts = {name: (WIDTH, mask) if name == "text" else (NAME, None) for name in named}
        lines = [[display(cell, *cuts[name]) for name, cell in row.items()] for row in first.to_dicts()]
        return Listing(f"{title}: {rows.height:,}", first.columns, lines)

    listings = [
        _splits(base, head, added, removed, relabelled, moved),
        _labels(base, head, task),
        Listing("Rejected", ("stage", "rule", base.name, head.name, "change"), rules),
        examples_of("Added", added, split="split", label="label", before="rule"),
        examples_of("Removed", removed, split="split", label="label", now="rule"),
        examples_of("Relabelled", _told_apart(relabelled, task), split="split", **{"from": "old_label", "to": "label"}),
        examples_of("Moved to another split", moved, **{"from": "old_split", "to": "split"}, label="label"),
    ]
    fold = examples_of("Another fold", refolded, split="split", **{"from": "old_fold", "to": "fold"})
    return [*listings, *([fold] if fold.rows else [])]


def _only_in(version: Version, other: Version) -> pl.DataFrame:
    """Return the rows that the other version lacks, with the rule by which that rejected them."""
    rules = other.rejected.select("id", "rule").unique("id", keep="first")
    rows = version.rows.join(other.rows, on="id", how="anti").join(rules, on="id", how="left")
    return rows.with_columns(pl.col("rule").fill_null("not in the sources"))


def _splits(base: Version, head: Version, *changes: pl.DataFrame) -> Listing:
    """Count rows by split: before and after, and those of each kind of change; the last kind moved in or out."""
    rows = []
    for name in SPLITS:
        counts = [table.filter(split=name).height for table in (base.rows, head.rows, *changes)]
        rows.append([name, *(f"{count:,}" for count in (*counts, changes[-1].filter(old_split=name).height))])
    return Listing("Splits", ("split", base.name, head.name, "added", "removed", "relabelled", "in", "out"), rows)


def _told_apart(rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Return relabelled rows with those names of either label that the other one lacks; numbers have none, and stay."""

    def own(label: str, other: str) -> str:
        names = task.names(label)
        return ", ".join(name for name in names if name not in task.names(other)) or "–" if names else label

    pairs = rows.select("label", "old_label").rows()
    columns = {"label": [own(*pair) for pair in pairs], "old_label": [own(*pair[::-1]) for pair in pairs]}
    return rows.with_columns(pl.Series(name, texts, pl.String) for name, texts in columns.items())


def _labels(base: Version, head: Version, task: Task) -> Listing:
    """Count rows by name, of numbers by decile, and split in both versions; what came or went is marked."""
    params = task.settled(pl.concat([base.rows["label"], head.rows["label"]]), CleanParams())
    before, after, change = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[str]()
    for version, counts in ((base, before), (head, after)):
        for split in SPLITS:
            of_split = task.counts(version.rows.filter(split=split)["label"], params)
            counts.update({(name, split): count for name, count in of_split.items()})
    for label, split in {**before, **after}:
        change[label] += abs(after[label, split] - before[label, split])
    rows = []
    for label in sorted(change, key=lambda label: (-change[label], label))[:LABELS]:
        old, new = ([counts[label, split] for split in SPLITS] for counts in (before, after))
        mark = " (new)" if not any(old) else " (lost)" if not any(new) else ""
        rows.append([display(label, NAME) + mark, *(f"{a:,} → {b:,}" for a, b in zip(old, new, strict=True))])
    more = f", the {LABELS} that changed most of {len(change):,}" if len(change) > LABELS else ""
    return Listing(f"Labels{more}", ("label", *SPLITS), rows)


def _rules(base: Version, head: Version) -> list[list[str]]:
    before, after = (Counter(version.rejected.select("stage", "rule").iter_rows()) for version in (base, head))
    return [
        [display(stage, NAME), display(rule, NAME), f"{old:,}", f"{new:,}", f"{new - old:+,}" if new != old else "–"]
        for stage, rule in sorted({**before, **after}, key=lambda key: (key[0] != "ingest", key[1]))
        for old, new in [(before[stage, rule], after[stage, rule])]
    ]
