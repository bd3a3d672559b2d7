"""clean: from raw records to three splits that share nothing; no row is dropped without a reason."""

import polars as pl

from stages.clean import repair
from stages.clean.reject import rules
from stages.clean.split import split_records
from stages.common.ledger import Ledger
from stages.common.params import CleanParams
from stages.common.schemas import CleanRecords, RawRecords, Rejected
from stages.common.stage import Run, stage, write_json


@stage("clean")
def main(run: Run[CleanParams]) -> None:
    """Repair texts, apply the rules one after the other, split what is left."""
    raw = RawRecords.read(run.input("data/raw/records.parquet"))
    ledger = Ledger("clean", raw)

    records = repair.repair(raw, run.params)
    repaired = (
        records.join(raw.select("id", raw_text="text"), on="id").filter(pl.col("text") != pl.col("raw_text")).height
    )
    for rule in rules(run.params):
        records = ledger.apply(rule, records)
    rejected = ", ".join(f"{rule} {rows:,}" for rule, rows in ledger.by_rule.items() if rows)
    print(f"  {raw.height:,} rows in, {repaired:,} repaired, rejected: {rejected or 'none'}", flush=True)

    splits = split_records(records, run.params.split, run.seed)
    for name, rows in splits.items():
        CleanRecords.write(rows, run.output(f"data/clean/{name}.parquet"))
    Rejected.write(ledger.rejected.sort("id", "rule"), run.output("data/clean/rejected.parquet"))

    account = ledger.close(sum(rows.height for rows in splits.values()))
    report = {**account, "texts_repaired": repaired, "splits": {name: _describe(rows) for name, rows in splits.items()}}
    write_json(report, run.output("reports/clean.json"))
    sizes = ", ".join(f"{name} {rows.height:,}" for name, rows in splits.items())
    print(f"  {sizes}")


def _describe(rows: pl.DataFrame) -> dict[str, object]:
    return {
        "rows": rows.height,
        "groups": rows["group"].n_unique() if rows["group"].count() else None,
        "labels": dict(rows["label"].value_counts().sort("label").iter_rows()),
        "median_characters": rows["text"].str.len_chars().median(),
    }


if __name__ == "__main__":
    main()
