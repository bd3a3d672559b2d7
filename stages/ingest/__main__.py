"""ingest: from the sources named in params to one table of records and the models, all on disk and hashed.

The network ends here: no later stage may use it. Nothing that comes from a source is imported or run.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from stages.common.digests import sha256_file
from stages.common.labels import check_label_counts
from stages.common.params import IngestParams, TextSource
from stages.common.schemas import Decontamination, RawRecords, Rejected
from stages.common.shown import shown
from stages.common.stage import Run, stage, write_json
from stages.ingest.base_model import bring_model
from stages.ingest.expansion import Limits
from stages.ingest.folders import files_of
from stages.ingest.receive import receive
from stages.ingest.records import check_label_map, read_records
from stages.ingest.resources import bring_resources
from stages.ingest.scratch import build_scratch_model
from stages.ingest.spool import Selection, Spool

REASONS_NAMED = 200  # in the manifest


@stage("ingest")
def main(run: Run[IngestParams]) -> None:
    """Read every source, map columns and labels, bring models and resources, write the manifest."""
    downloads, unpacked = run.work_folder("downloads"), run.work_folder("unpacked")
    limits = Limits(run.params.max_download_mb, run.params.max_expanded_mb)
    shutil.rmtree(unpacked)  # left by a run that was killed
    work = run.work_folder("unpacked")
    sources: list[dict[str, Any]] = []
    reference_sources: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=work) as folder:
        spool = Spool(Path(folder))
        for records in _read(run.params.sources, sources, limits, downloads, work):
            spool.add(records)
        references = _read(run.params.decontaminate_against, reference_sources, limits, downloads, work)
        Decontamination.write_batches(references, run.output("data/raw/decontamination.parquet"))

        labels = run.params.label_map
        if labels is not None:
            check_label_map(spool.labels, labels)
        check_label_counts(_mapped_counts(spool.labels, labels), "in the sources")
        selection = Selection(spool, labels, run.params.limit, run.seed)
        records_path = run.output("data/raw/records.parquet")
        RawRecords.write_batches(selection.records(), records_path, spool.group_rows)
        Rejected.write_batches(selection.rejected(), run.output("data/raw/rejected.parquet"), spool.group_rows)

    base, commit = run.output("models/base"), None
    if run.params.base_model.scratch:
        texts = pl.read_parquet(records_path, columns=["text"])["text"].drop_nulls()
        build_scratch_model(texts.to_list(), run.params.base_model.scratch, base, run.seed)
    else:
        commit = bring_model(run.params.base_model, base, downloads, limits)
    bring_resources(run.params.resources.named(), run.output("models/resources"), downloads, limits)

    because = sorted(selection.reasons.items(), key=lambda item: (-item[1], item[0]))
    rejected = selection.reasons.total()
    report = {
        "rows_read": spool.rows,
        "rows_kept": selection.kept,
        "rows_rejected": rejected,
        "rejected_because": _commonest(because),
        "labels": dict(sorted(selection.kept_labels.items())),
        "sources": sources,
        "decontaminate_against": reference_sources,
        "base_model": {
            "origin": run.params.base_model.origin,
            "revision": commit,
            "sha256": {name: sha256_file(base / name) for name in files_of(base)},
        },
    }
    write_json(report, run.output("data/raw/manifest.json"))
    counted = f"{spool.rows:,} rows read, {selection.kept:,} kept, {rejected:,} rejected"
    print(f"  {counted}; base model {run.params.base_model.origin}")
    for reason, count in because[:5]:
        print(f"  rejected {count:,}: {shown(reason, 160)}")


def _read(
    sources: Sequence[TextSource], entries: list[dict[str, Any]], limits: Limits, downloads: Path, work: Path
) -> Iterator[pl.DataFrame]:
    """Yield the records of all sources in their order; add the sources' entries in the manifest."""
    for source in sources:
        with receive(source, limits, downloads, work) as (tables, entry):
            entries.append(entry | {"rows_read": 0})
            for table in tables:
                for records in read_records(table, source):
                    entries[-1]["rows_read"] += records.height
                    yield records


def _mapped_counts(counts: Mapping[str, int], labels: Mapping[str, str] | None) -> dict[str, int]:
    """Return how often there is each label once it is mapped, in their order."""
    mapped: Counter[str] = Counter()
    for label, count in counts.items():
        if labels is None or label in labels:
            mapped[labels[label] if labels else label] += count
    return dict(sorted(mapped.items()))


def _commonest(because: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Return reasons with their counts; the seldom ones, of which there may be thousands, in one entry."""
    others = because[REASONS_NAMED:]
    rest = {f"{len(others)} other reasons": sum(count for _, count in others)} if others else {}
    return dict(because[:REASONS_NAMED]) | rest


if __name__ == "__main__":
    main()
