"""ingest: from the sources named in params to one table of records and a base model, both on disk and hashed.

The network ends here: no later stage may use it. Nothing that comes from a source is imported or run.
"""

import tempfile
from pathlib import Path

import polars as pl

from stages.common.digests import sha256_file
from stages.common.labels import check_labels
from stages.common.params import IngestParams, Source
from stages.common.schemas import RawRecords, Rejected
from stages.common.stage import Run, stage, write_json
from stages.ingest.base_model import bring_model
from stages.ingest.fetch import licence_of, locate
from stages.ingest.formats import read_table
from stages.ingest.records import check_splits, draw, map_labels, to_records, with_ids
from stages.ingest.scratch import build_scratch_model


@stage("ingest")
def main(run: Run[IngestParams]) -> None:
    """Read every source, map columns and labels, bring the base model, write the manifest."""
    downloads = run.work_folder("downloads")
    parts: list[pl.DataFrame] = []
    manifest: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as unpacked:
        for number, source in enumerate(run.params.sources):
            file = locate(source, downloads, Path(unpacked) / str(number))
            parts.append(to_records(read_table(file, source), source))
            manifest.append(_origin(source, file, downloads))

    read = check_splits(with_ids(pl.concat(parts)))
    mapped, unmapped = map_labels(read, run.params.label_map)
    check_labels(mapped["label"], "in the sources")
    records, not_drawn = draw(mapped, run.params.limit, run.seed)
    rejected = pl.concat([unmapped, not_drawn])
    RawRecords.write(records, run.output("data/raw/records.parquet"))
    Rejected.write(rejected, run.output("data/raw/rejected.parquet"))

    base = run.params.base_model
    if base.scratch:
        texts = records["text"].drop_nulls().to_list()
        names = build_scratch_model(texts, base.scratch, run.output("models/base"), run.seed)
    else:
        names = bring_model(base, run.output("models/base"), downloads)
    hashes = {name: sha256_file(run.output("models/base") / name) for name in names}

    for number, entry in enumerate(manifest):
        entry["rows_read"] = parts[number].height
    because = rejected["reason"].value_counts(sort=True).sort("count", "reason", descending=[True, False])
    report = {
        "rows_read": read.height,
        "rows_kept": records.height,
        "rows_rejected": rejected.height,
        "rejected_because": dict(because.iter_rows()),
        "labels": dict(records["label"].drop_nulls().value_counts().sort("label").iter_rows()),
        "sources": manifest,
        "base_model": {"origin": base.origin, "sha256": hashes},
    }
    write_json(report, run.output("data/raw/manifest.json"))
    counted = f"{read.height:,} rows read, {records.height:,} kept, {rejected.height:,} rejected"
    print(f"  {counted}; base model {base.origin}")
    for reason, count in because.head(5).iter_rows():
        print(f"  rejected {count:,}: {reason}")


def _origin(source: Source, file: Path, downloads: Path) -> dict[str, object]:
    return {
        "origin": source.origin,
        "sha256": sha256_file(file),
        "bytes": file.stat().st_size,
        "licence": licence_of(source, downloads),
    }


if __name__ == "__main__":
    main()
