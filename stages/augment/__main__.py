"""augment: more training rows out of training rows; validation and test are read only to keep clear of them."""

import polars as pl

from stages.augment.filters import accepted
from stages.augment.rows import new_rows
from stages.common.params import AugmentParams, CleanParams
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.pipeline.validation import Ledger, validation_report
from stages.common.schemas import AugmentedRecords, CleanRecords
from stages.tasks import load_task
from stages.tasks.base import Task


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
