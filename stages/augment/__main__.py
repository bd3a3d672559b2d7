"""augment: more training rows out of training rows; validation and test are read only to keep clear of them."""

import polars as pl

from stages.augment.rows import new_rows
from stages.common.params import AugmentParams, CleanParams
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.pipeline.validation import Ledger, Rule, validation_report
from stages.common.schemas import AugmentedRecords, CleanRecords
from stages.common.text.columns import is_unspaced, whole_text
from stages.common.text.near_duplicates import nearest_among
from stages.tasks import load_task
from stages.tasks.base import Task

NUM_PERM = 128


@stage("augment")
def main(run: Run[AugmentParams]) -> None:
    """Make new rows, and keep those that pass the filters."""
    train, validation, test = (
        CleanRecords.read(run.input(f"data/clean/{name}.parquet")) for name in ("train", "validation", "test")
    )
    task = load_task(run.all_params.task)
    made = new_rows(train, task, run.params, run.seed, lambda name: run.input(f"models/resources/{name}"))
    kept, ledger = accepted(made, train, pl.concat([validation, test]), task, run.params, run.seed)

    rows = pl.concat([train, kept], how="diagonal")  # without parent and method in those of train
    rows = AugmentedRecords.write(rows, run.output("data/augmented/train.parquet"))
    contract = validation_report(AugmentedRecords, rows, name="augmented")
    write_json(contract, run.output("reports/validation/augmented.json"))
    write_json(report(train, made, kept, ledger, task), run.output("reports/augment.json"))
    dropped = ", ".join(f"{name} {count:,}" for name, count in ledger.by_rule.items() if count)
    print(
        f"  {train.height:,} rows in, {made.height:,} made, {kept.height:,} of them added; dropped: {dropped or 'none'}"
    )


def accepted(
    made: pl.DataFrame, train: pl.DataFrame, held_out: pl.DataFrame, task: Task, params: AugmentParams, seed: int
) -> tuple[pl.DataFrame, Ledger]:
    """Return the new rows that pass every filter, in their order, and the account of the others.

    Each filter gives the reason why a row goes, null where it stays.
    """

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


def report(
    train: pl.DataFrame, made: pl.DataFrame, kept: pl.DataFrame, ledger: Ledger, task: Task
) -> dict[str, object]:
    """Account for every row made, in all and by method; the number of rows per label before and after."""
    reasons = made.select("id", "method").join(ledger.rejected.select("id", "rule"), on="id")
    methods = {}
    for name in made["method"].unique(maintain_order=True):
        dropped = reasons.filter(method=name)["rule"].to_list()
        methods[name] = {
            "made": made.filter(method=name).height,
            "dropped": {rule: dropped.count(rule) for rule in ledger.by_rule},
            "added": kept.filter(method=name).height,
        }
    params = task.settled(train["label"], CleanParams())
    before = task.counts(train["label"], params)
    after = task.counts(pl.concat([train["label"], kept["label"]]), params)
    return {
        "rows_in": train.height,
        "rows_made": made.height,
        "dropped": ledger.by_rule,
        "rows_added": kept.height,
        "rows_out": train.height + kept.height,
        "labels": {label: {"before": count, "after": after[label]} for label, count in before.items()},
        "methods": methods,
    }


if __name__ == "__main__":
    main()
