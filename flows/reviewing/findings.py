"""What a review finds, as plain data that both pages show; texts of rows are cut and masked where they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from flows.data_changes import Listing
from flows.reviewing.revision import Revision

Trend = Literal["better", "worse", "same", "unclear"]
Points = tuple[tuple[float, float], ...]


class ParamChange(NamedTuple):
    """A setting that differs, defaults included; None: one side has none. `doc` is its line of docs/params.md."""

    key: str
    old: str | None
    new: str | None
    doc: str = ""


class StageChange(NamedTuple):
    """What became of a stage: why it ran again, and the outs whose bytes differ."""

    stage: str
    kind: Literal["ran again", "same", "new", "removed"]
    reasons: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()


class FileChange(NamedTuple):
    """A file that differs, by part of the project, with Git's count of lines (None: a binary file)."""

    part: str
    path: str
    added: int | None
    removed: int | None


class VersionChange(NamedTuple):
    """A pinned dependency whose version differs; `here` is what is installed where the review ran."""

    package: str
    old: str | None
    new: str | None
    here: str | None


class ValidationChange(NamedTuple):
    """Whether a table passed its checks when it was written (None: no report), and what differs between the reports."""

    table: str
    before: bool | None
    now: bool | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changes:
    """What changed; `data` is empty where no row differs, None where the tables could not be compared."""

    params: tuple[ParamChange, ...] = ()
    stages: tuple[StageChange, ...] = ()
    files: tuple[FileChange, ...] = ()
    versions: tuple[VersionChange, ...] = ()
    data: tuple[Listing, ...] | None = ()
    validation: tuple[ValidationChange, ...] = ()
    missing: tuple[str, ...] = ()  # what could not be compared, and why, a line each


class Gain(NamedTuple):
    """A score of both models on the same rows, with the paired bootstrap's interval of head - base.

    `trend` is `better` or `worse` where 0 is outside of the interval and enough predictions differ to say so, `same`
    where none does.
    """

    name: str
    rows: int
    base: float
    head: float
    gain: float
    low: float
    high: float
    trend: Trend


class ChangedRow(NamedTuple):
    """A row that only one of the two models gets right."""

    id: str
    text: str
    text_pair: str
    label: str
    before: str
    before_confidence: float
    now: str
    now_confidence: float


class ChangedRows(NamedTuple):
    """How many rows improved (or regressed), and the first of them by the head's confidence."""

    total: int
    examples: tuple[ChangedRow, ...] = ()


class Curve(NamedTuple):
    """A curve of both revisions, (x, y) in order; `x` says what x is."""

    name: str
    base: Points
    head: Points
    x: str


class Figure(NamedTuple):
    """A number of both revisions without an interval, where lower or higher is better; None: not known."""

    name: str
    base: float | None
    head: float | None
    unit: str
    better: Literal["lower", "higher"] = "lower"


@dataclass(frozen=True)
class Effect:
    """What the change did, on the test rows that both models predicted; the labels are the head's.

    Args:
        rows: how many these are; 0: nothing could be compared.
        only_base: test rows of the base alone.
        only_head: of the head alone.
        relabelled: shared rows whose label differs.
        scores: accuracy, macro-F1 and the others of `stages.tasks.scores`.
        mcnemar_p: of the exact test on the rows that only one of the two gets right.
        classes: F1 of each label.
        slices: accuracy of each slice of the head's evaluate.slices.
        improved: rows that the head gets right and the base did not.
        regressed: the other way round.
        moved: rows with another prediction though both are wrong.
        labels: of the confusion matrices, in order.
        confusion_base: counts [actual x predicted], int64.
        confusion_head: the same of the head.
        curves: of training and validation.
        reliability: accuracy by confidence.
        figures: calibration, sizes, and latency as measured here.
        missing: what could not be compared, and why, a line each.
    """

    rows: int
    only_base: int
    only_head: int
    relabelled: int
    scores: tuple[Gain, ...]
    mcnemar_p: float
    classes: tuple[Gain, ...]
    slices: tuple[Gain, ...]
    improved: ChangedRows
    regressed: ChangedRows
    moved: int
    labels: tuple[str, ...]
    confusion_base: np.ndarray
    confusion_head: np.ndarray
    curves: tuple[Curve, ...] = ()
    reliability: tuple[Curve, ...] = ()
    figures: tuple[Figure, ...] = ()
    missing: tuple[str, ...] = ()


class OutCheck(NamedTuple):
    """An out of the rebuild, compared with `dvc.lock`; `missing`: made in one of the two alone."""

    stage: str
    path: str
    verdict: Literal["identical", "equal", "different", "missing"]
    how: str = ""


class EnvironmentChange(NamedTuple):
    """Something about the machine that trained: as recorded, and in the rebuild."""

    name: str
    recorded: str
    here: str


@dataclass(frozen=True)
class Rebuild:
    """Whether the recorded results come out again.

    Args:
        verdict: `identical`: every out has the bytes that dvc.lock says; `equal`: but for the tolerance; `unrecorded`:
            dvc.lock is missing, or of other code, params or data than the commit's; `left out`: not asked for.
        first: the first stage that differs or failed.
        how: of that stage, in a line.
        outs: every out, in graph order.
        seconds: wall time of each stage that was run.
        tolerance: what `equal` means and what was found, in a sentence; nothing: that question did not come up.
        environment: what differs between the machine of the record and this one.
        environment_known: whether both say which hardware they are.
        last_lines: of the stage that failed.
    """

    verdict: Literal["identical", "equal", "different", "failed", "unrecorded", "left out"]
    first: str = ""
    how: str = ""
    outs: tuple[OutCheck, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    tolerance: str = ""
    environment: tuple[EnvironmentChange, ...] = ()
    environment_known: bool = True
    last_lines: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the recorded results, as far as the review has looked."""
        return self.verdict in ("identical", "equal", "left out")


@dataclass(frozen=True)
class Lineage:
    """Where the head's model comes from.

    Args:
        commit: full hash.
        subject: first line of its message.
        data: (what, digest) of sources and clean splits, in order.
        base_model: (origin, digest of its weights).
        model: digest of the fine-tuned model; nothing if there is none.
        run: id of its run in the project's MLflow store; None: it has none, or the store was not asked.
        versions: (registered model, version, alias) of the model, in that store.
        problem: why MLflow could not be asked, or nothing.
    """

    commit: str
    subject: str
    data: tuple[tuple[str, str], ...] = ()
    base_model: tuple[str, str] = ("", "")
    model: str = ""
    run: str | None = None
    versions: tuple[tuple[str, int, str], ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Review:
    """All that a review found.

    Args:
        head: what is reviewed.
        base: the last commit that both histories share; None: it has no results, so nothing can be compared.
        asked_base: the base as it was asked for.
        behind: commits of the asked base that the head does not have; they are no part of the review.
        changes: None without a base.
        effect: None where one side has no predictions.
        rebuild: whether the results come out again.
        lineage: where the model comes from.
        gates: of the head's registration report: gate, value, limit, passed, reason.
        conflicts: files that keep the head from being merged into the asked base.
        uncommitted: files of the checkout that differ from its HEAD, where that is what is reviewed.
        notes: anything else that a reader should know, a line each.
        failure: what went wrong on the base's side, so that nothing could be compared.
    """

    head: Revision
    base: Revision | None
    asked_base: str
    behind: int
    changes: Changes | None
    effect: Effect | None
    rebuild: Rebuild
    lineage: Lineage
    gates: Sequence[Mapping[str, Any]] = ()
    conflicts: tuple[str, ...] = ()
    uncommitted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failure: str = ""
