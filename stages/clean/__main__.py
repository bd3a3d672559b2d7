"""clean: from raw records to three splits that share nothing; no row is dropped without a reason."""

from collections import Counter
from collections.abc import Iterator
from functools import partial

import polars as pl

from stages.clean.filters import CONTRARY, merged_targets, rules, with_targets
from stages.clean.label_issues import apply_action, find_label_issues
from stages.clean.page import PageData, render
from stages.clean.split import split_records
from stages.clean.split_report import official_warnings, split_report
from stages.common.display import display, listed
from stages.common.drift import split_drift
from stages.common.params import CleanParams
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.pipeline.validation import Ledger, check_label_counts, enforce, most_rejecting, validation_report
from stages.common.schemas import CleanRecords, Decontamination, RawRecords, Rejected, Suspects, TrainableRecords
from stages.common.text.cleaning import TextCleaning
from stages.common.text.pii import mask_text
from stages.tasks import load_task
from stages.tasks.base import Task


@stage("clean")
def main(run: Run[CleanParams]) -> None:
    """Clean the texts, apply the rules one after the other, split what is left, look for wrong labels, report."""
    params, task = run.params, load_task(run.all_params.task)
    mask = partial(mask_text, phone_region=params.pii.phone_region) if params.report.mask_pii else None
    raw = RawRecords.read(run.input("data/raw/records.parquet"))
    contract = validation_report(TrainableRecords, raw, name="raw", mask=mask)
    write_json(contract, run.output("reports/validation/raw.json"))

    cleaning = params.text_cleaning
    run.output("data/clean/text_cleaning.json").write_text(cleaning.as_text(), encoding="utf-8")
    ledger = Ledger("clean", raw.height)
    records, changed = cleaned(raw.with_columns(task.cleaned(raw["label"], cleaning)), cleaning)
    # An empty text is rejected as it came.
    ledger.reject("empty_text", raw.filter(records["text"].is_null()).with_columns(reason=pl.lit("the text is empty")))
    records = records.drop_nulls("text")
    no_label = pl.col("label").null_count().alias("unlabelled")
    official = raw.drop_nulls("split").group_by("split").agg(pl.len(), no_label)
    del raw  # here and below: two million rows are to fit into 2 GiB
    _print_counts(f"{ledger.rows_in:,} rows in, texts changed by", changed)
    against = Decontamination.read(run.input("data/raw/decontamination.parquet"))
    against = against.with_columns(cleaning.column(against["text"])[0]).drop_nulls("text")
    records, merged = _ruled(task.grouped(records, params), against, task, params, ledger)
    enforce(params.stop_above, ledger.rejected, ledger.rows_in)
    named, out = task.named(records["label"]), ledger.rejected.lazy()
    check_label_counts(records["label"], named, "after cleaning", out, params.min_label_rows)
    params = _settled(records["label"], task, params)
    records = records.with_columns(stratum=task.strata(records["label"], params))
    splits = split_records(records, params.split, run.seed, ledger.rejected, named)
    learnt = dict.fromkeys(named, 0) | task.named(splits["train"]["label"])
    check_label_counts(splits["train"]["label"], learnt, "in train", out, least=1)
    official_faults = official_warnings(official, records.filter(split="train")["id"], splits)
    del records
    issues = find_label_issues(splits, task, params, run.seed)
    splits, doubted = apply_action(splits, issues, params.label_issues.action)
    ledger.reject("label_issue", doubted)
    enforce(params.stop_above, ledger.rejected, ledger.rows_in)

    for name, rows in splits.items():
        CleanRecords.write(rows, run.output(f"data/clean/{name}.parquet"))
        report = validation_report(CleanRecords, rows, name=name, mask=mask)
        write_json(report, run.output(f"reports/validation/{name}.json"))
    rejected = Rejected.write(ledger.rejected.sort("id", "rule"), run.output("data/clean/rejected.parquet"))
    Suspects.write(issues, run.output("data/clean/suspects.parquet"))
    counts = {name: task.counts(rows["label"], params) for name, rows in splits.items()}
    account = {
        **ledger.close(sum(rows.height for rows in splits.values())),
        "texts_changed_by": changed,
        **({"targets_merged": merged} if merged else {}),
        "suspects": issues.height,
        "splits": {
            name: {
                "rows": rows.height,
                "groups": rows["group"].n_unique() if rows["group"].count() else None,
                "labels": counts[name],
            }
            for name, rows in splits.items()
        },
    }
    write_json(account, run.output("reports/clean.json"))

    report = {
        **split_report(
            {name: with_targets(rows, task) for name, rows in splits.items()}, counts, params, run.seed, mask
        ),
        "drift": split_drift(splits, counts),
    }
    report["warnings"] += [*official_faults, *_of_rejected(ledger, splits["train"], task)]
    write_json(report, run.output("reports/splits.json"))
    page = PageData(
        changed=changed,
        by_rule=ledger.by_rule,
        rejected=pl.concat([Rejected.read(run.input("data/raw/rejected.parquet")), rejected]),
        splits=splits,
        label_issues=issues,
        report=report,
        contract=contract,
        examples=params.report.examples,
    )
    run.output("reports/data.html").write_text(render(page, mask), encoding="utf-8")
    for warning in report["warnings"]:
        print(f"  warning: {warning}")
    _print_counts("rows:", {name: rows.height for name, rows in splits.items()})
    doubts = f"{issues.height:,} labels look wrong; " if issues.height else ""
    print(f"  {doubts}all of it is on reports/data.html", flush=True)


def _ruled(
    records: pl.DataFrame, against: pl.DataFrame, task: Task, params: CleanParams, ledger: Ledger
) -> tuple[pl.DataFrame, int]:
    """Return the records that no rule rejects, and how many of them got the target that suits all equal texts."""
    merged = 0
    for name, rule in rules(params, against, task).items():
        if name == "conflicting_labels":
            records, merged = merged_targets(records, task, params)
        records = ledger.apply(name, rule, records)
    _print_counts("rejected:", ledger.by_rule)
    if merged:
        print(f"  {merged:,} rows with equal texts and differing targets got one target that suits all", flush=True)
    return records, merged


def _settled(labels: pl.Series, task: Task, params: CleanParams) -> CleanParams:
    """Return the params with what was found by all labels, and say which line keeps it."""
    settled = task.settled(labels, params)
    if settled.split.deciles != params.split.deciles:
        line = f"clean.split.deciles: {settled.split.deciles}"
        print(f"  in params.yaml this keeps every row in its split when others come: {line}", flush=True)
    return settled


def _of_rejected(ledger: Ledger, train: pl.DataFrame, task: Task) -> Iterator[str]:
    """Yield what is odd about the rows that were rejected."""
    rejected, kept = ledger.rejected, set(task.names_in(train["label"]))
    if 2 * rejected.height > ledger.rows_in:
        yield f"most rows are rejected: {most_rejecting(rejected.lazy())}"
    lost = {
        label: [name for name in task.names(label) if name not in kept]
        for label in rejected["label"].drop_nulls().unique()
    }
    if names := sorted({name for some in lost.values() for name in some}):
        rows = rejected.filter(pl.col("label").is_in([label for label, some in lost.items() if some]))
        shown = listed([display(name, 60) for name in names], 5)
        yield f"no row of the label {shown} is left: {most_rejecting(rows.lazy())}"
    if contrary := int(rejected["reason"].str.contains(CONTRARY, literal=True).sum()):
        yield (
            f"{contrary:,} rows nearly equal one that stays and has another label: see which of the two is right; "
            "rejected.parquet names both"
        )


def cleaned(records: pl.DataFrame, cleaning: TextCleaning) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the records with clean texts (null where nothing is left), and how many texts each step changed."""
    changed = Counter(dict.fromkeys(cleaning.steps(), 0))
    texts = {}
    for column in ("text", "text_pair"):
        if records[column].null_count() < records.height:
            texts[column], counts = cleaning.column(records[column])
            changed.update(counts)
    return records.with_columns(**texts), dict(changed)


def _print_counts(what: str, counts: dict[str, int]) -> None:
    print(f"  {what} {', '.join(f'{name} {n:,}' for name, n in counts.items() if n) or 'none'}", flush=True)


if __name__ == "__main__":
    main()
