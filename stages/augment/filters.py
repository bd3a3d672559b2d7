"""What keeps a new row out: each filter gives the reason, null where the row stays."""

import polars as pl

from stages.common.params import AugmentParams
from stages.common.pipeline.validation import Ledger, Rule
from stages.common.text.columns import is_unspaced, whole_text
from stages.common.text.near_duplicates import nearest_among
from stages.tasks.base import Task

NUM_PERM = 128


def accepted(
    made: pl.DataFrame, train: pl.DataFrame, held_out: pl.DataFrame, task: Task, params: AugmentParams, seed: int
) -> tuple[pl.DataFrame, Ledger]:
    """Return the new rows that pass every filter, in their order, and the account of the others."""

    def near_a_held_out_text(rows: pl.DataFrame) -> pl.Expr:
        """The model would be scored on what it has nearly seen."""
        texts, others = whole_text(rows), whole_text(held_out)
        shingle_size = 3 if is_unspaced(others) else 5
        match, similarity = nearest_among(texts, others, params.leak_threshold, shingle_size, NUM_PERM)
        reason = pl.format("similarity {} to a validation or test row", pl.Series(similarity).round(2))
        return pl.when(pl.Series(match >= 0, dtype=pl.Boolean)).then(reason)

    def lost_its_target(rows: pl.DataFrame) -> pl.Expr | pl.Series:
        reasons = task.keeps_target(rows, train, params, seed)
        return pl.lit(None, pl.String) if reasons is None else reasons

    # The cheap ones first. The first two: a method changed nothing, or made what is there already.
    training_texts = whole_text(train).implode()
    known, repeated = pl.lit("a training row has the same text"), pl.lit("another new row has the same text")
    filters: dict[str, Rule] = {
        "equal_to_a_training_text": lambda rows: pl.when(whole_text(rows).is_in(training_texts)).then(known),
        "equal_to_another_new_text": lambda rows: pl.when(~whole_text(rows).is_first_distinct()).then(repeated),
        "near_a_held_out_text": near_a_held_out_text,
    }
    if params.label_preservation.enabled:
        filters["lost_its_label"] = lost_its_target
    ledger, kept = Ledger("augment", made.height), made
    for name, rule in filters.items():
        kept = ledger.apply(name, rule, kept)
    ledger.close(kept.height)
    return kept, ledger
