"""One side of a review: a commit in a worktree of its own, with the outs that its `dvc.lock` names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pyarrow import ArrowException  # type: ignore[import-untyped]

from flows.reporting.reports import read_report
from stages.common.display import Mask
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params
from stages.common.pipeline.graph import Node
from stages.common.text.pii import mask_text


@dataclass(frozen=True)
class Revision:
    """A commit and its results.

    Args:
        name: as it was asked for: `origin/main`.
        commit: its full hash.
        subject: first line of the commit's message.
        folder: a worktree with its files.
        graph: stages of its dvc.yaml, in order.
        lock: stages of the `dvc.lock` of the results here; empty: there are none.
        data: what its params.yaml says, as read from YAML.
        results: `recorded`: those of the commit; `run`: made by the review, as they were missing or not of this code,
            params and data; `rebuilt`: those of the rebuild, for the same reason; `none`: it is from before the first.
        stale: stages whose record is not of this commit's code, params and data, each with a reason in a line.
        own_data: whether files of data/inbox/ that Git does not have are here as the results were made of them.
    """

    name: str
    commit: str
    subject: str
    folder: Path
    graph: Mapping[str, Node]
    lock: Mapping[str, Any]
    data: Mapping[str, Any]
    results: Literal["recorded", "run", "rebuilt", "none"] = "recorded"
    stale: Mapping[str, str] = field(default_factory=dict)
    own_data: bool = True

    @property
    def short(self) -> str:
        """The commit as people write it."""
        return self.commit[:10]

    @cached_property
    def params(self) -> Params | None:
        """Its params; None if the code that runs here cannot read them: older code had other keys."""
        try:
            return check_params(self.data)
        except (AttuneError, RecursionError):
            return None

    @property
    def mask(self) -> Mask | None:
        """What hides personal data in texts, unless its params say that its pages show them."""
        if self.params and not self.params.evaluate.mask_pii:
            return None
        return partial(mask_text, phone_region=self.params.clean.pii.phone_region if self.params else None)

    def report(self, path: str) -> dict[str, Any]:
        """Return a report, such as `reports/metrics.json`; nothing if there is none or none that can be read."""
        return read_report(self.folder / path)

    def table(self, path: str) -> pl.DataFrame | None:
        """Return a Parquet or CSV table of the project, or None if it is not there or not readable."""
        file = self.folder / path
        try:
            return pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file, use_pyarrow=True)
        except (OSError, ArrowException, pl.exceptions.PolarsError):
            return None

    def hashes(self, stage: str, kind: Literal["deps", "outs"]) -> dict[str, str]:
        """Return the MD5 that `dvc.lock` has for each dependency or out of a stage, by path; folders end in `.dir`."""
        entries = self.lock.get(stage, {}).get(kind, [])
        return {entry["path"]: str(entry.get("md5") or entry.get("hash") or "") for entry in entries}
