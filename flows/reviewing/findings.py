"""What a review finds, as plain data that both pages show; texts of rows are cut and masked where they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from flows.reviewing.data_changes import Listing
from flows.reviewing.revision import Revision
from stages.common.pages.charts import Chart
from stages.common.params.tasks import TaskSpec

Machine = Mapping[str, str]  # what a model was trained on, by name; empty: not known
RebuildVerdict = Literal["identical", "equal", "different", "failed", "unrecorded", "left out"]
Trend = Literal["better", "worse", "same", "unclear"]
VersionChange = tuple[str, str | None, str | None]  # package, old, new
Figure = tuple[str, float | None, float | None]  # name, base, head (None: not known)
Confused = tuple[str, str, int, int]  # label, prediction, how often base and head take one for the other (or itself)
Lineage = tuple[tuple[tuple[str, str], ...], str]  # (what, fact) on a model's origin; why MLflow could not be asked


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


@dataclass(frozen=True)
class Changes:
    """What changed; `data` is empty where no row differs, None where the tables could not be compared."""

    params: tuple[ParamChange, ...] = ()
    stages: tuple[StageChange, ...] = ()
    files: tuple[FileChange, ...] = ()
    versions: tuple[VersionChange, ...] = ()  # of what constraints.txt pins
    data: tuple[Listing, ...] | None = ()
    missing: tuple[str, ...] = ()  # what could not be compared, and why, a line each


class Gain(NamedTuple):
    """A score of both models on the same rows, with the paired bootstrap's interval of what the head gains.

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
    before_confidence: float | None
    after: str
    after_confidence: float | None


class ChangedRows(NamedTuple):
    """How many rows improved (or regressed), and the first of them by the head's confidence."""

    total: int
    examples: tuple[ChangedRow, ...] = ()


@dataclass(frozen=True)
class Effect:
    """What the change did, on the test rows that both models predicted; the labels are the head's."""

    rows: int  # 0: nothing could be compared
    only_base: int  # test rows of the base alone
    only_head: int
    relabelled: int  # shared rows whose label differs
    scores: tuple[Gain, ...]  # of the task
    mcnemar_p: float  # of the exact test on the rows that only one of the two gets right
    parts: tuple[Gain, ...]  # the score of each label, where the task has one: F1
    slices: tuple[Gain, ...]  # one score of each slice of the head's evaluate.slices
    improved: ChangedRows  # the head gets them right and the base did not
    regressed: ChangedRows
    moved: int  # rows with another prediction though both are wrong
    spec: TaskSpec  # of the head's task
    confusion: tuple[Confused, ...] = ()  # what is taken for what more or less often, the largest change first
    curves: tuple[Chart, ...] = ()  # of both trainings, and their reliability
    figures: tuple[Figure, ...] = ()  # calibration and size, numbers without an interval
    missing: tuple[str, ...] = ()  # what could not be compared, and why, a line each


class OutCheck(NamedTuple):
    """An out of the rebuild, compared with `dvc.lock`."""

    stage: str
    path: str
    verdict: Literal["identical", "equal", "different"]
    how: str = ""


@dataclass(frozen=True)
class Rebuild:
    """Whether the recorded results come out again.

    `identical`: every out has the bytes that dvc.lock says; `equal`: but for what other hardware may change;
    `unrecorded`: dvc.lock is missing, or of other code, params or data than the commit's; `left out`: not asked for.
    """

    verdict: RebuildVerdict
    first: str = ""  # stage that differs or failed
    how: str = ""  # of that stage, in a line
    outs: tuple[OutCheck, ...] = ()  # in the order of the graph
    seconds: Mapping[str, float] = field(default_factory=dict)  # wall time of each stage that was run
    agreement: str = ""  # what `equal` means and what was compared; nothing: that question did not come up
    environment: tuple[tuple[str, str, str], ...] = ()  # what differs of the two trainings' machines: recorded, here
    last_lines: tuple[str, ...] = ()  # of the stage that failed

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the recorded results, as far as the review has looked."""
        return self.verdict in ("identical", "equal", "left out")


@dataclass(frozen=True)
class Review:
    """All that a review found."""

    head: Revision
    base: Revision | None  # the last commit that both histories share; None: it has no results to compare with
    asked_base: str
    behind: int  # commits of the asked base that the head does not have; they are no part of the review
    changes: Changes | None
    effect: Effect | None  # None where one side has no predictions
    rebuild: Rebuild
    lineage: Lineage
    gates: Sequence[Mapping[str, Any]] = ()  # of the head's registration report: gate, value, limit, passed, reason
    uncommitted: tuple[str, ...] = ()  # files of the checkout that differ from its HEAD, where that is reviewed
    notes: tuple[str, ...] = ()  # anything else that a reader should know, a line each
    failure: str = ""  # what went wrong on the base's side, so that nothing could be compared
