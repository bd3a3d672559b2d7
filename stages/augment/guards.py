"""What keeps a new row out. Each guard parts new rows into (kept, dropped), the dropped ones with a `reason`."""

from collections.abc import Callable

import polars as pl

from stages.augment.label_check import likeliest_labels
from stages.common.ledger import Ledger
from stages.common.near_duplicates import nearest_among
from stages.common.params import AugmentParams
from stages.common.texts import whole_text

NUM_PERM = 128

Parted = tuple[pl.DataFrame, pl.DataFrame]
Guard = Callable[[pl.DataFrame], Parted]


def guarded(
    made: pl.DataFrame, train: pl.DataFrame, held_out: pl.DataFrame, params: AugmentParams, seed: int
) -> tuple[pl.DataFrame, Ledger]:
    """Return the new rows that pass every guard, in their order, and the account of the others."""
    ledger = Ledger("augment", made)
    kept = made
    for guard in guards(train, held_out, params, seed):
        kept = ledger.apply(guard, kept)
    ledger.close(kept.height)
    return kept, ledger


def guards(train: pl.DataFrame, held_out: pl.DataFrame, params: AugmentParams, seed: int) -> list[Guard]:
    """Return the guards in the order they are applied, the cheap ones first."""

    def equal_to_a_training_text(made: pl.DataFrame) -> Parted:
        """The method changed nothing, or hit upon what is there already."""
        known = whole_text(made).is_in(whole_text(train).implode())
        return _part(made, known, pl.lit("a training row has the same text"))

    def equal_to_another_new_text(made: pl.DataFrame) -> Parted:
        """Two methods, or two turns of one, made the same of a text; the first stays."""
        return _part(made, ~whole_text(made).is_first_distinct(), pl.lit("another new row has the same text"))

    def near_a_held_out_text(made: pl.DataFrame) -> Parted:
        """The model would be scored on what it has nearly seen."""
        return near_held_out(made, held_out, params.leak_threshold)

    def lost_its_label(made: pl.DataFrame) -> Parted:
        """A quick classifier trained on train no longer gives the text the label of its parent."""
        return without_their_label(made, train, params.label_preservation.min_probability, seed)

    chosen: list[Guard] = [equal_to_a_training_text, equal_to_another_new_text, near_a_held_out_text]
    return [*chosen, lost_its_label] if params.label_preservation.enabled else chosen


def near_held_out(made: pl.DataFrame, held_out: pl.DataFrame, threshold: float) -> Parted:
    """Part off the rows whose text and second text together equal or nearly equal those of a held-out row."""
    texts, others = whole_text(made), whole_text(held_out)
    found, similarity = nearest_among(texts, others, threshold, shingle_size(others), NUM_PERM)
    reason = pl.format("similarity {} to a validation or test row", pl.Series("similarity", similarity).round(2))
    return _part(made, pl.Series(found >= 0, dtype=pl.Boolean), reason)


def without_their_label(made: pl.DataFrame, train: pl.DataFrame, min_probability: float, seed: int) -> Parted:
    """Part off the rows to which the classifier gives another label, or their own with too little probability."""
    if made.is_empty():
        return made, made.with_columns(reason=pl.lit(None, pl.String))
    labels, of_own = likeliest_labels(whole_text(train), train["label"], whole_text(made), made["label"], seed)
    reason = pl.format("a classifier gives it {} (its own label: {})", labels, of_own.round(2))
    return _part(made, (labels != made["label"]) | (of_own < min_probability), reason)


def shingle_size(texts: pl.Series) -> int:
    """Return how many characters a shingle has: fewer where most texts are of a script without spaces."""
    spaced = texts.str.contains(" ", literal=True).mean()
    return 5 if spaced is None or spaced > 0.5 else 3  # type: ignore[operator]


def _part(rows: pl.DataFrame, out: pl.Series, reason: pl.Expr) -> Parted:
    return rows.filter(~out), rows.with_columns(reason=reason).filter(out)
