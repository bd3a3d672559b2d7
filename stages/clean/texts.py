"""Take the texts of all rows through the cleaning steps, a batch at a time, and count what each step changed."""

from collections import Counter

import polars as pl

from stages.clean.steps import Step, settle

BATCH = 100_000  # texts; what a step makes on its way is gone before the next batch


def cleaned(records: pl.DataFrame, steps: list[Step]) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the records with clean texts (null where nothing is left), and how many texts each step changed."""
    changed = Counter({step.name: 0 for step in steps})
    texts = {
        column: _in_batches(records[column], steps, changed)
        for column in ("text", "text_pair")
        if records[column].null_count() < records.height
    }
    return records.with_columns(**texts), dict(changed)


def cleaned_texts(texts: pl.Series, steps: list[Step]) -> pl.Series:
    """Return texts as the steps leave them."""
    return _in_batches(texts, steps, Counter())


def _in_batches(texts: pl.Series, steps: list[Step], changed: Counter[str]) -> pl.Series:
    parts = [texts.clear()]
    for start in range(0, len(texts), BATCH):
        settled, counts = settle(texts.slice(start, BATCH), steps)
        changed.update(counts)
        parts.append(settled)
    return pl.concat(parts, rechunk=False)
