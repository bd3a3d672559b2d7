"""ingest: from the sources named in params to one table of records and the models, all on disk and hashed.

The network ends here: no later stage may use it. Nothing that comes from a source is imported or run.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.digests import sha256_file
from stages.common.display import display
from stages.common.params import IngestParams, TextSource
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.pipeline.validation import check_label_counts
from stages.common.schemas import Decontamination, RawRecords, Rejected
from stages.ingest.base_model import bring_model
from stages.ingest.expansion import Workspace
from stages.ingest.folders import files_of
from stages.ingest.receive import receive
from stages.ingest.records import check_label_map, read_records
from stages.ingest.resources import bring_resources
from stages.ingest.scratch import build_scratch_model
from stages.ingest.spool import Spool

REASONS_NAMED = 200  # in the manifest: of the others, which are seldom, there may be thousands


@stage("ingest")
def main(run: Run[IngestParams]) -> None:
    """Read every source, map columns and labels, bring models and resources, write the manifest."""
    params, label_map = run.params, run.params.label_map
    shutil.rmtree(run.work_folder("unpacked"))  # left by a run that was killed
    folders = run.work_folder("downloads"), run.work_folder("unpacked")
    workspace = Workspace(*folders, params.max_download_mb, params.max_expanded_mb)
    sources: list[dict[str, Any]] = []
    reference_sources: list[dict[str, Any]] = []
    labels, reasons = Counter[str](), Counter[str]()
    records_path = run.output("data/raw/records.parquet")
    with tempfile.TemporaryDirectory(dir=workspace.unpacked) as folder:
        spool = Spool(Path(folder))
        for records in _read(params.sources, sources, workspace):
            spool.add(records)
        references = _read(params.decontaminate_against, reference_sources, workspace)
        Decontamination.write_batches(references, run.output("data/raw/decontamination.parquet"))

        if label_map is not None:
            check_label_map(spool.labels, label_map)
        how = (label_map, params.limit, run.seed)
        kept = (_counted(kept, "label", labels) for kept, _ in spool.split(*how))
        RawRecords.write_batches(kept, records_path, spool.group_rows)
        check_label_counts(dict(sorted(labels.items())), "among the rows that are kept")
        rejected = (_counted(rejected, "reason", reasons) for _, rejected in spool.split(*how))
        Rejected.write_batches(rejected, run.output("data/raw/rejected.parquet"), spool.group_rows)

    base, commit = run.output("models/base"), None
    if params.base_model.scratch:
        texts = pl.read_parquet(records_path, columns=["text"])["text"].drop_nulls()
        build_scratch_model(texts.to_list(), params.base_model.scratch, base, run.seed)
    else:
        commit = bring_model(params.base_model, base, workspace)
    bring_resources(params.resources.named(), run.output("models/resources"), workspace)

    because = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    rows, rejected_rows = spool.rows, reasons.total()
    report = {
        "rows_read": rows,
        "rows_kept": rows - rejected_rows,
        "rows_rejected": rejected_rows,
        "rejected_because": dict(because[:REASONS_NAMED]),
        "labels": dict(sorted(labels.items())),
        "sources": sources,
        "decontaminate_against": reference_sources,
        "base_model": {
            "origin": params.base_model.origin,
            "revision": commit,
            "sha256": {name: sha256_file(base / name) for name in files_of(base)},
        },
    }
    write_json(report, run.output("data/raw/manifest.json"))
    counted = f"{rows:,} rows read, {rows - rejected_rows:,} kept, {rejected_rows:,} rejected"
    print(f"  {counted}; base model {params.base_model.origin}")
    for reason, count in because[:5]:
        print(f"  rejected {count:,}: {display(reason, 160)}")


def _read(sources: Sequence[TextSource], entries: list[dict[str, Any]], workspace: Workspace) -> Iterator[pl.DataFrame]:
    """Yield the records of all sources in their order; add the sources' entries in the manifest."""
    for source in sources:
        with receive(source, workspace) as (tables, entry):
            entries.append(entry | {"rows_read": 0})
            for table in tables:
                for records in read_records(table, source):
                    entries[-1]["rows_read"] += records.height
                    yield records


def _counted(rows: pl.DataFrame, column: str, counts: Counter[str]) -> pl.DataFrame:
    """Return the rows, and add how often there is each value of a column."""
    counts.update(dict(rows[column].drop_nulls().value_counts().iter_rows()))
    return rows


if __name__ == "__main__":
    main()
