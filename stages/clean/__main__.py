"""clean: from raw records to three splits that share nothing; no row is dropped without a reason."""

from collections import Counter
from collections.abc import Iterator
from functools import partial

import polars as pl

from stages.clean.filters import CONTRARY, rules
from stages.clean.label_issues import apply_action, find_label_issues
from stages.clean.page import PageData, render
from stages.clean.split import split_records
from stages.clean.split_report import official_warnings, split_report
from stages.common.display import display, listed
from stages.common.drift import split_drift
from stages.common.params import CleanParams
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.pipeline.validation import Ledger, enforce, most_rejecting, validation_report
from stages.common.schemas import CleanRecords, Decontamination, RawRecords, Rejected, Suspects, TrainableRecords
from stages.common.text.cleaning import TextCleaning
from stages.common.text.pii import mask_text


@stage("clean")
def main(run: Run[CleanParams]) -> None:
    """Clean the texts, apply the rules one after the other, split what is left, look for wrong labels, report."""
    params = run.params
    mask = partial(mask_text, phone_region=params.pii.phone_region) if params.report.mask_pii else None
    raw = RawRecords.read(run.input("data/raw/records.parquet"))
    contract = validation_report(TrainableRecords, raw, name="raw", mask=mask)
    write_json(contract, run.output("reports/validation/raw.json"))

    cleaning = params.text_cleaning
    run.output("data/clean/text_cleaning.json").write_text(cleaning.as_text(), encoding="utf-8")
    ledger = Ledger("clean", raw.height)
    records, changed = cleaned(raw, cleaning)
    # An empty text is rejected as it came.
    ledger.reject("empty_text", raw.filter(records["text"].is_null()).with_columns(reason=pl.lit("the text is empty")))
    records = records.drop_nulls("text")
    no_label = pl.col("label").null_count().alias("unlabelled")
    official = raw.drop_nulls("split").group_by("split").agg(pl.len(), no_label)
    del raw  # here and below: two million rows are to fit into 2 GiB
    _print_counts(f"{ledger.rows_in:,} rows in, texts changed by", changed)
    against = Decontamination.read(run.input("data/raw/decontamination.parquet"))
    against = against.with_columns(cleaning.column(against["text"])[0]).drop_nulls("text")
    for name, rule in rules(params, against).items():
        records = ledger.apply(name, rule, records)

    _print_counts("rejected:", ledger.by_rule)
    enforce(params.stop_above, ledger.rejected, ledger.rows_in)
    splits = split_records(records, params.split, run.seed, ledger.rejected)
    official_faults = official_warnings(official, records.filter(split="train")["id"], splits)
    del records
    issues = find_label_issues(splits, params.label_issues, run.seed)
    splits, doubted = apply_action(splits, issues, params.label_issues.action)
    ledger.reject("label_issue", doubted)
    enforce(params.stop_above, ledger.rejected, ledger.rows_in)

    for name, rows in splits.items():
        CleanRecords.write(rows, run.output(f"data/clean/{name}.parquet"))
        report = validation_report(CleanRecords, rows, name=name, mask=mask)
        write_json(report, run.output(f"reports/validation/{name}.json"))
    rejected = Rejected.write(ledger.rejected.sort("id", "rule"), run.output("data/clean/rejected.parquet"))
    Suspects.write(issues, run.output("data/clean/suspects.parquet"))
    account = {
        **ledger.close(sum(rows.height for rows in splits.values())),
        "texts_changed_by": changed,
        "suspects": issues.height,
        "splits": {
            name: {
                "rows": rows.height,
                "groups": rows["group"].n_unique() if rows["group"].count() else None,
                "labels": dict(rows["label"].value_counts().sort("label").iter_rows()),
            }
            for name, rows in splits.items()
        },
    }
    write_json(account, run.output("reports/clean.json"))

    report = {**split_report(splits, params, run.seed, mask), "drift": split_drift(splits)}
    report["warnings"] += [*official_faults, *_of_rejected(ledger, splits)]
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
    print(f"  {issues.height:,} labels look wrong; all of it on reports/data.html", flush=True)


def _of_rejected(ledger: Ledger, splits: dict[str, pl.DataFrame]) -> Iterator[str]:
    """Yield what is odd about the rows that were rejected."""
    rejected, labels = ledger.rejected, splits["train"]["label"].unique().implode()
    if 2 * rejected.height > ledger.rows_in:
        yield f"most rows are rejected: {most_rejecting(rejected.lazy())}"
    lost = rejected.filter(~pl.col("label").is_in(labels))
    if not lost.is_empty():
        names = listed([display(label, 60) for label in lost["label"].unique().sort()], 5)
        yield f"no row of the label {names} is left: {most_rejecting(lost.lazy())}"
    if contrary := int(rejected["reason"].str.contains(CONTRARY, literal=True).sum()):
        yield (
            f"{contrary:,} rows nearly equal one that stays and has another label: one of the two labels is wrong; "
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
