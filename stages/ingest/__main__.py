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
from stages.common.errors import AttuneError
from stages.common.params import CleanParams, IngestParams, TextSource
from stages.common.pipeline.dvc_files import check_deps
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.pipeline.validation import check_label_counts, most_rejecting
from stages.common.schemas import Decontamination, RawRecords, Rejected, Retention
from stages.ingest.archives import Workspace
from stages.ingest.fetch import open_source
from stages.ingest.labels import check_label_column, check_look_alikes, label_names
from stages.ingest.models import bring_model, bring_resources, files_of
from stages.ingest.records import check_label_map, read_records
from stages.ingest.scratch import build_scratch_language_model, build_scratch_model
from stages.ingest.spool import Spool
from stages.tasks import load_task
from stages.tasks.base import Task

MOST_REASONS = 200  # in the manifest: of the others, which are seldom, there may be thousands
ASKED_FOR = ["left_out", "not_drawn"]  # rules that reject what params say


@stage("ingest")
def main(run: Run[IngestParams]) -> None:
    """Read every source, map columns and labels, bring models and resources, write the manifest."""
    params, label_map, task = run.params, run.params.label_map, load_task(run.all_params.task)
    check_deps()
    shutil.rmtree(run.work_folder("unpacked"))  # left by a run that was killed
    folders = run.work_folder("downloads"), run.work_folder("unpacked")
    workspace = Workspace(*folders, params.max_download_mb, params.max_expanded_mb)
    sources: list[dict[str, Any]] = []
    reference_sources: list[dict[str, Any]] = []
    retention_sources: list[dict[str, Any]] = []
    records_path, rejected_path = run.output("data/raw/records.parquet"), run.output("data/raw/rejected.parquet")
    with tempfile.TemporaryDirectory(dir=workspace.unpacked) as folder:
        spool = Spool(Path(folder), task)
        for records in _read(params.sources, sources, workspace, task, params):
            spool.add(records)
        references = _read(params.decontaminate_against, reference_sources, workspace, task, params)
        Decontamination.write_batches(references, run.output("data/raw/decontamination.parquet"))
        general = _read(params.retention_texts, retention_sources, workspace, task, params)
        Retention.write_batches(general, run.output("data/raw/retention.parquet"))

        given = {source.label for source in params.sources if source.label is not None}
        names, named = label_names(spool.names, {*(label_map or ()), *given}, params.missing), Counter[str]()
        absent = {label: count for label, count in sorted(spool.names.items()) if names[label] is None}
        for label, count in spool.names.items():
            if name := names[label]:
                named[name] += count
        if not named.keys() & (label_map or {}).keys():
            check_label_column(named, params.sources)
        if label_map is not None:
            check_label_map(named, label_map)
        check_look_alikes(named, label_map or ())
        selection = (names, label_map, params.limit, run.seed)
        RawRecords.write_batches((kept for kept, _ in spool.split(*selection)), records_path, spool.group_rows)
        kept_labels = pl.read_parquet(records_path, columns=["label"])["label"].drop_nulls()
        labels = task.counts(kept_labels, CleanParams())
        Rejected.write_batches((others for _, others in spool.split(*selection)), rejected_path, spool.group_rows)
        least, others = run.all_params.clean.min_label_rows, pl.scan_parquet(rejected_path)
        check_label_counts(kept_labels, task.named(kept_labels), "among the rows that are kept", others, least)
        why = others.select(pl.col("reason").value_counts()).unnest("reason").sort("reason")
        reasons = dict(why.collect().iter_rows())

    base = run.output("models/base")
    commit = _bring_base(run, records_path, base, workspace)
    bring_resources(params.resources.named(), run.output("models/resources"), workspace)

    rejected = sum(reasons.values())
    counts = {"rows_read": spool.rows, "rows_kept": spool.rows - rejected, "rows_rejected": rejected}
    commonest = sorted(reasons.items(), key=lambda item: -item[1])
    report = counts | {
        "rejected_because": dict(commonest[:MOST_REASONS]),
        "labels": labels,
        **({"labels_taken_as_missing": absent} if absent else {}),
        "sources": sources,
        "decontaminate_against": reference_sources,
        **({"retention_texts": retention_sources} if retention_sources else {}),
        "base_model": {
            "origin": params.base_model.origin,
            "revision": commit,
            "sha256": {name: sha256_file(base / name) for name in files_of(base)},
        },
    }
    write_json(report, run.output("data/raw/manifest.json"))
    summary = "{rows_read:,} rows read, {rows_kept:,} kept, {rows_rejected:,} rejected".format(**counts)
    print(f"  {summary}; base model {params.base_model.origin}")
    for spelling, count in [*absent.items()][:5]:
        shown = f"{count:,} labels '{display(spelling, 80)}'"
        print(f"  warning: {shown} count as missing: name it in ingest.labels if it is a label")
    _print_rejected(rejected_path, spool.rows - rejected, commonest)


def _bring_base(run: Run[IngestParams], records: Path, target: Path, workspace: Workspace) -> str | None:
    """Bring or build the base model; return the commit of a hub's repository."""
    source, kind = run.params.base_model, run.all_params.spec.base
    if not source.scratch:
        return bring_model(source, target, workspace, kind)
    texts = pl.read_parquet(records, columns=["text"])["text"].drop_nulls()
    build = build_scratch_model if kind == "encoder" else build_scratch_language_model
    build(texts.to_list(), source.scratch, target, run.seed)
    return None


def _print_rejected(rejected: Path, kept: int, commonest: list[tuple[str, int]]) -> None:
    if why := most_rejecting(pl.scan_parquet(rejected).filter(~pl.col("rule").is_in(ASKED_FOR)), kept):
        print(f"  warning: many rows are rejected: {why}")
    for reason, count in commonest[:5]:
        print(f"  rejected {count:,}: {display(reason, 160)}")
    if more := commonest[5:]:
        print(f"  rejected for {len(more):,} other reasons: {sum(count for _, count in more):,}")


def _read(
    sources: Sequence[TextSource],
    entries: list[dict[str, Any]],
    workspace: Workspace,
    task: Task,
    params: IngestParams,
) -> Iterator[pl.DataFrame]:
    """Yield the records of all sources in their order; add the sources' entries in the manifest."""
    earlier: dict[tuple[str, str], int] = {}
    for number, source in enumerate(sources, start=1):
        mapping = source.model_dump_json(include={"columns", "label", "where", "pattern"})
        with open_source(source, workspace) as (tables, entry):
            entries.append(entry | {"rows_read": 0})
            for table in tables:
                same = (table.origin if source.inside else entry["sha256"], mapping)
                if (first := earlier.setdefault(same, number)) < number:
                    raise AttuneError(
                        f"{table.origin}: entries {first} and {number} of the sources are the same rows, counted twice",
                        "delete one of the two, or let member name fewer files",
                    )
                for records in read_records(table, source, task, params):
                    entries[-1]["rows_read"] += records.height
                    yield records


if __name__ == "__main__":
    main()
