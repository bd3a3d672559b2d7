"""The test rows that two models both predicted, side by side."""

from dataclasses import dataclass, fields

import polars as pl

from flows.reviewing.compared.orphans import orphans
from flows.reviewing.findings import Flip, Flips
from flows.reviewing.revision import Revision

PREDICTIONS = "data/predictions.parquet"
TEST = "data/clean/test.parquet"
COLUMNS = {"id": pl.String, "label": pl.String, "prediction": pl.String, "confidence": pl.Float64}
NONE = pl.DataFrame(schema=COLUMNS)
TEXTS = {"id": pl.String, "text": pl.String, "text_pair": pl.String}


@dataclass(frozen=True)
class SharedRows:
    """Rows that both revisions have in their test split, by their ids.

    Args:
        rows: by id: id, label (the head's), was_label, was, was_confidence, now, now_confidence, text, text_pair.
        only_base: test rows of the base alone.
        only_head: of the head alone.
        missing: what could not be read, a line each.
    """

    rows: pl.DataFrame
    only_base: int
    only_head: int
    missing: tuple[str, ...] = ()

    @property
    def relabelled(self) -> int:
        """Rows whose label differs."""
        return self.rows.filter(pl.col("label") != pl.col("was_label")).height

    @property
    def labels(self) -> list[str]:
        """All labels that a row has or a model gave, sorted."""
        return sorted({*self.rows["label"], *self.rows["was"], *self.rows["now"]})

    def flips(self, examples: int) -> tuple[Flips, Flips, int]:
        """Return rows that the head alone gets right, those that the base alone does, and how many else moved."""
        right, before = pl.col("now") == pl.col("label"), pl.col("was") == pl.col("label")
        moved = self.rows.filter(~right & ~before & (pl.col("now") != pl.col("was"))).height
        fixed, broken = (_flips(self.rows.filter(kind), examples) for kind in (right & ~before, before & ~right))
        return fixed, broken, moved


def shared_rows(base: Revision, head: Revision) -> SharedRows | None:
    """Return the test rows that both models predicted; None if one of the two revisions has no predictions."""
    tables, missing = [], []
    for revision in (base, head):
        if not (revision.folder / PREDICTIONS).exists():
            return None
        found = _predictions(revision)
        if isinstance(found, str):
            missing.append(f"no rows can be compared: {PREDICTIONS} of {revision.name} {found}")
        else:
            tables.append(found)
    if missing:
        return SharedRows(_side_by_side(NONE, NONE, None), 0, 0, tuple(missing))
    was, now = tables
    texts = _texts(head)
    both = _side_by_side(was, now, texts)
    if both.is_empty():
        missing.append("no test row is in both revisions: the scores cannot be compared")
    if texts is None:
        missing.append(f"{TEST} of {head.name} is not there or not readable: rows are shown without their texts")
    return SharedRows(both, was.height - both.height, now.height - both.height, tuple(missing))


def _side_by_side(was: pl.DataFrame, now: pl.DataFrame, texts: pl.DataFrame | None) -> pl.DataFrame:
    before = was.select("id", was_label="label", was="prediction", was_confidence="confidence")
    after = now.select("id", "label", now="prediction", now_confidence="confidence")
    known = pl.DataFrame(schema=TEXTS) if texts is None else texts
    return after.join(before, on="id").join(known, on="id", how="left").sort("id")


def _predictions(revision: Revision) -> pl.DataFrame | str:
    """Return what a revision's model says of its test rows; or what the table is that it should not be."""
    if PREDICTIONS in orphans(revision):
        return "is made by no stage of dvc.yaml"
    table = revision.table(PREDICTIONS)
    if table is None:
        return "is no table that can be read"
    if gone := [name for name in COLUMNS if name not in table.columns]:
        return f"has no column {', '.join(gone)}"
    for name, kind in COLUMNS.items():
        if table.schema[name] != kind:
            return f"has {table.schema[name]} in its column {name}, not {kind}"
    table = table.select(*COLUMNS)
    if more := table.height - table["id"].n_unique():
        return f"has rows twice: {more:,} more than ids"
    if empty := [name for name in COLUMNS if table[name].null_count()]:
        return f"has rows without {', '.join(empty)}"
    if not table["confidence"].is_finite().all():
        return "has confidences that are no numbers"
    return table


def _texts(head: Revision) -> pl.DataFrame | None:
    table = head.table(TEST)
    if table is None or any(table.schema.get(name) != pl.String for name in ("id", "text")):
        return None
    pair = pl.col("text_pair") if "text_pair" in table.columns else pl.lit(None, pl.String).alias("text_pair")
    return table.select("id", "text", pair.cast(pl.String, strict=False)).unique(
        "id", keep="first", maintain_order=True
    )


def _flips(rows: pl.DataFrame, examples: int) -> Flips:
    """Return the rows of which the head's model is most sure, rightly or wrongly."""
    first = rows.sort("now_confidence", "id", descending=[True, False]).head(examples)
    columns = first.with_columns(pl.col("text").fill_null("")).select(field.name for field in fields(Flip))
    return Flips(rows.height, tuple(Flip(*row) for row in columns.iter_rows()))
