"""One side of a review: a commit in a worktree of its own, with the outs that its `dvc.lock` names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from flows.reviewing.compared.tables import read_parquet
from flows.told.reports import read_report
from stages.common.graph import Node

Results = Literal["recorded", "run", "rebuilt", "none"]


@dataclass(frozen=True)
class Revision:
    """A commit and what came of it.

    Args:
        name: as it was asked for: `origin/main`.
        commit: its full hash.
        subject: first line of the commit's message.
        folder: where its files are: a worktree, in which no stage of the caller's checkout has a part.
        graph: stages of its dvc.yaml, in order.
        lock: stages of the `dvc.lock` that tells of the results here, as DVC wrote it; empty: there are none.
        data: what its params.yaml says, as read from YAML.
        results: where the results come from. `recorded`: the commit has them, and DVC's cache or remote had the files;
            `run`: made by the review, as they were missing or not of this code, params and data; `rebuilt`: those of
            the rebuild from nothing, for the same reason; `none`: the commit is from before the first run.
        stale: stages whose record is not of this commit's code, params and data, each with a reason in a line.
        own_data: whether files of data/inbox/ that Git does not have are here as the commit's results were made of
            them; the commit cannot be run again without.
    """

    name: str
    commit: str
    subject: str
    folder: Path
    graph: Mapping[str, Node]
    lock: Mapping[str, Any]
    data: Mapping[str, Any]
    results: Results = "recorded"
    stale: Mapping[str, str] = field(default_factory=dict)
    own_data: bool = True

    @property
    def short(self) -> str:
        """The commit as people write it."""
        return self.commit[:10]

    def report(self, path: str) -> dict[str, Any]:
        """Return a report, such as `reports/metrics.json`; nothing if there is none or none that can be read."""
        return read_report(self.folder / path)

    def table(self, path: str) -> pl.DataFrame | None:
        """Return a Parquet or CSV table of the project, or None if it is not there or not readable."""
        file = self.folder / path
        if not file.exists():
            return None
        try:
            return pl.read_csv(file) if file.suffix == ".csv" else read_parquet(file)
        except (OSError, pl.exceptions.PolarsError):
            return None

    def hashes(self, stage: str, kind: Literal["deps", "outs"]) -> dict[str, str]:
        """Return the MD5 that `dvc.lock` has for each dependency or out of a stage, by path; folders end in `.dir`."""
        entries = self.lock.get(stage, {}).get(kind, [])
        return {entry["path"]: str(entry.get("md5") or entry.get("hash") or "") for entry in entries}
