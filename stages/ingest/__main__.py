"""ingest: from the sources named in params to one table of records and the models, all on disk and hashed.

The network ends here: no later stage may use it. Nothing that comes from a source is imported or run.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import partial

import polars as pl

from stages.common.digests import sha256_file
from stages.common.labels import check_labels
from stages.common.params import IngestParams, Source, TextSource
from stages.common.schemas import Decontamination, RawRecords, Rejected
from stages.common.shown import shown
from stages.common.stage import Run, stage, write_json
from stages.ingest.base_model import bring_model
from stages.ingest.expansion import Limits
from stages.ingest.folders import files_of
from stages.ingest.receive import Tables, receive
from stages.ingest.records import check_splits, draw, map_labels, to_records, to_references, with_ids
from stages.ingest.resources import bring_resources
from stages.ingest.scratch import build_scratch_model

REASONS_NAMED = 200  # in the manifest

Receive = Callable[[TextSource], tuple[Tables, dict[str, object]]]


@stage("ingest")
def main(run: Run[IngestParams]) -> None:
    """Read every source, map columns and labels, bring models and resources, write the manifest."""
    downloads, unpacked = run.work_folder("downloads"), run.work_folder("unpacked")
    limits = Limits(run.params.max_download_mb, run.params.max_expanded_mb)
    shutil.rmtree(unpacked)  # left by a run that was killed
    read_all = partial(receive, limits=limits, downloads=downloads, unpacked=run.work_folder("unpacked"))
    read, sources = _records(run.params.sources, read_all)
    references, reference_sources = _references(run.params.decontaminate_against, read_all)
    Decontamination.write(references, run.output("data/raw/decontamination.parquet"))

    mapped, unmapped = map_labels(read, run.params.label_map)
    check_labels(mapped["label"], "in the sources")
    records, not_drawn = draw(mapped, run.params.limit, run.seed)
    rejected = pl.concat([unmapped, not_drawn])
    RawRecords.write(records, run.output("data/raw/records.parquet"))
    Rejected.write(rejected, run.output("data/raw/rejected.parquet"))

    base, commit = run.output("models/base"), None
    if run.params.base_model.scratch:
        build_scratch_model(records["text"].drop_nulls().to_list(), run.params.base_model.scratch, base, run.seed)
    else:
        commit = bring_model(run.params.base_model, base, downloads, limits)
    bring_resources(run.params.resources.named(), run.output("models/resources"), downloads, limits)

    because = rejected["reason"].value_counts(sort=True).sort("count", "reason", descending=[True, False])
    report = {
        "rows_read": read.height,
        "rows_kept": records.height,
        "rows_rejected": rejected.height,
        "rejected_because": _commonest(because),
        "labels": dict(records["label"].drop_nulls().value_counts().sort("label").iter_rows()),
        "sources": sources,
        "decontaminate_against": reference_sources,
        "base_model": {
            "origin": run.params.base_model.origin,
            "revision": commit,
            "sha256": {name: sha256_file(base / name) for name in files_of(base)},
        },
    }
    write_json(report, run.output("data/raw/manifest.json"))
    counted = f"{read.height:,} rows read, {records.height:,} kept, {rejected.height:,} rejected"
    print(f"  {counted}; base model {run.params.base_model.origin}")
    for reason, count in because.head(5).iter_rows():
        print(f"  rejected {count:,}: {shown(reason, 160)}")


def _commonest(because: pl.DataFrame) -> dict[str, int]:
    """Return reasons with their counts; the seldom ones, of which there may be thousands, in one entry."""
    named = dict(because.head(REASONS_NAMED).iter_rows())
    others = because.slice(REASONS_NAMED)
    return named | ({f"{others.height} other reasons": others["count"].sum()} if others.height else {})


def _records(sources: Sequence[Source], receive: Receive) -> tuple[pl.DataFrame, list[dict[str, object]]]:
    """Return the records of all sources in their order, with ids, and the sources' entries in the manifest."""
    parts: list[pl.DataFrame] = []
    entries = []
    for source in sources:
        tables, entry = receive(source)
        parts += [to_records(table, source, name) for name, table in tables]
        entries.append(entry)
    return check_splits(with_ids(pl.concat(parts))), entries


def _references(sources: Sequence[TextSource], receive: Receive) -> tuple[pl.DataFrame, list[dict[str, object]]]:
    """Return the texts that no record may equal, and their sources' entries in the manifest."""
    parts = [Decontamination.empty()]
    entries = []
    for source in sources:
        tables, entry = receive(source)
        parts += [to_references(table, source, name) for name, table in tables]
        entries.append(entry)
    return pl.concat(parts), entries


if __name__ == "__main__":
    main()
