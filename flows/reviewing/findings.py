"""What a review finds: facts alone, in the shape that both pages show them; how they are said is the pages' matter.

Texts and labels in here are as the data have them; whoever shows them cuts, masks and escapes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from flows.data_changes import Listing
from flows.reviewing.revision import Revision

Trend = Literal["better", "worse", "same", "unclear"]


# ── what changed ──────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class ParamChange:
    """One setting, defaults included.

    Args:
        key: dotted: `finetune.learning_rate`.
        old: value as text; None: there was none.
        new: value as text; None: there is none any more.
        doc: the line that docs/params.md has of it, or nothing.
    """

    key: str
    old: str | None
    new: str | None
    doc: str = ""


@dataclass(frozen=True)
class StageChange:
    """What became of one stage between the two revisions.

    Args:
        stage: its name.
        kind: `ran again`: something that it depends on differs; `same`: nothing does; `new` and `removed` in dvc.yaml.
        reasons: why, a line each: `params: clean.length.min 3 → 5`, `code: stages/clean (reject.py)`, `data: data/raw`.
        outs: paths of outs with other bytes; none though it ran again: the change made no difference from here on.
    """

    stage: str
    kind: Literal["ran again", "same", "new", "removed"]
    reasons: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()


@dataclass(frozen=True)
class CodeChange:
    """Files that changed in one part of the project, in Git's count of lines.

    Args:
        part: `stages/clean`, `stages/common`, `flows`, `tests`, `docs`, `pipeline` (dvc.yaml, params.yaml), `other`.
        files: (path, lines added, lines removed); None for a binary file.
    """

    part: str
    files: tuple[tuple[str, int | None, int | None], ...]


@dataclass(frozen=True)
class VersionChange:
    """A pinned dependency whose version differs.

    Args:
        package: its name.
        old: version in the base's constraints.txt; None: not pinned there.
        new: in the head's.
        here: installed where the review ran; None: not installed.
    """

    package: str
    old: str | None
    new: str | None
    here: str | None


@dataclass(frozen=True)
class ValidationChange:
    """A table's contract, checked when it was written.

    Args:
        table: `raw`, `train`, ….
        before: whether it passed in the base; None: no report.
        now: in the head.
        notes: what differs between the reports, a line each: rows, nulls, failed checks.
    """

    table: str
    before: bool | None
    now: bool | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changes:
    """Section 2.

    `data` is empty where the same rows are in the same splits with the same labels, None where that could not be seen.
    """

    params: tuple[ParamChange, ...] = ()
    stages: tuple[StageChange, ...] = ()
    code: tuple[CodeChange, ...] = ()
    versions: tuple[VersionChange, ...] = ()
    data: tuple[Listing, ...] | None = ()
    validation: tuple[ValidationChange, ...] = ()
    missing: tuple[str, ...] = ()  # what could not be compared, and why, a line each


# ── what it did ───────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Gain:
    """A score of both models on the same rows (paired bootstrap, as `stages.tasks.comparison`).

    Args:
        name: of the score, the class or the slice.
        rows: that both were scored on.
        base: the base's score.
        head: the head's.
        gain: head - base.
        low: lower bound of the gain's interval.
        high: upper bound.
        trend: `better`: the whole interval is above 0, and enough predictions differ to say so; `worse`: below; `same`:
            no prediction of these rows differs.
    """

    name: str
    rows: int
    base: float
    head: float
    gain: float
    low: float
    high: float
    trend: Trend


@dataclass(frozen=True)
class Flip:
    """A row that only one of the two models gets right; confidences are those of the predictions."""

    id: str
    text: str
    text_pair: str | None
    label: str
    was: str
    was_confidence: float
    now: str
    now_confidence: float


@dataclass(frozen=True)
class Flips:
    """Rows that changed sides.

    Args:
        count: all of them.
        examples: the most confident first (of the model that is right, for `fixed`; that is wrong, for `broken`).
    """

    count: int
    examples: tuple[Flip, ...]


@dataclass(frozen=True)
class Curve:
    """A curve of one revision, such as the validation loss by epoch.

    Args:
        name: `validation_loss`.
        base: (x, y) in order; empty: there is none.
        head: the same.
        x: what x is: `step`, `epoch`, `confidence`.
    """

    name: str
    base: tuple[tuple[float, float], ...]
    head: tuple[tuple[float, float], ...]
    x: str


@dataclass(frozen=True)
class Figure:
    """A plain number of both revisions, without an interval: calibration error, bytes, milliseconds.

    Args:
        name: for people: `calibration error`, `size of the model`.
        base: None: not known.
        head: None: not known.
        unit: `""`, `MiB`, `ms`, `%`.
        better: which way is better.
    """

    name: str
    base: float | None
    head: float | None
    unit: str
    better: Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Effect:
    """Section 3.

    Args:
        rows: test rows that both models predicted and that both revisions have: what all gains are counted on.
        only_base: test rows of the base alone.
        only_head: of the head alone.
        relabelled: shared rows whose label differs; both models are held against the head's.
        scores: accuracy, macro-F1 and the others of `stages.tasks.scores`, in that order.
        mcnemar_p: of the exact test on the rows that only one of the two gets right.
        classes: F1 of each label.
        slices: accuracy of each slice of the head's evaluate.slices.
        fixed: rows that the head gets right and the base did not.
        broken: the other way round.
        moved: rows whose prediction differs though both are wrong.
        labels: of the confusion matrices, in order.
        confusion_base: counts [actual x predicted] on the shared rows, int64.
        confusion_head: the same of the head.
        curves: of training and validation.
        reliability: accuracy by confidence.
        calibration: expected calibration error and its like.
        costs: sizes, and latency as measured here, both models in turns.
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
    fixed: Flips
    broken: Flips
    moved: int
    labels: tuple[str, ...]
    confusion_base: np.ndarray
    confusion_head: np.ndarray
    curves: tuple[Curve, ...] = ()
    reliability: tuple[Curve, ...] = ()
    calibration: tuple[Figure, ...] = ()
    costs: tuple[Figure, ...] = ()
    missing: tuple[str, ...] = ()


# ── can it be rebuilt ─────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class OutCheck:
    """One out of the rebuild, held against `dvc.lock`.

    Args:
        stage: that made it.
        path: in the project.
        verdict: `identical`: the same bytes; `equal`: other bytes, but within the tolerance; `different`; `missing`:
            made in one of the two alone.
        how: what differs, in a line: `1 of 101 tensors differs, by up to 0.0039 (classifier.weight)`.
    """

    stage: str
    path: str
    verdict: Literal["identical", "equal", "different", "missing"]
    how: str = ""


@dataclass(frozen=True)
class EnvironmentChange:
    """Something about the machine that trained, as its run in MLflow has it.

    Args:
        name: `processor`, `threads`, `torch`.
        recorded: when the commit's model was trained.
        here: in the rebuild.
    """

    name: str
    recorded: str
    here: str


@dataclass(frozen=True)
class Rebuild:
    """Section 4.

    Args:
        verdict: `identical`: every out has the bytes that dvc.lock says; `equal`: up to the stated tolerance;
            `different`; `failed`: a stage did not run; `unrecorded`: there is no dvc.lock, or it is not of this
            commit's code, params and data, so there is nothing to hold the rebuild against; `tampered`: what the
            commit or DVC's cache keeps is not what dvc.lock says; `left out`: not asked for.
        first: the first stage that differs, failed or was tampered with.
        how: of that stage, in a line: which out, and what differs in it.
        outs: every out, in graph order.
        seconds: wall time of each stage that was run.
        agreement: share of test rows with the same prediction, where that was asked; None: it was not.
        tolerance: what `equal` means, in a sentence.
        environment: what differs between the machine of the record and this one.
        environment_known: whether the record says where it was made.
        venv: whether a virtual environment of its own was made from the head's constraints.txt.
        last_lines: of the stage that failed.
    """

    verdict: Literal["identical", "equal", "different", "failed", "unrecorded", "tampered", "left out"]
    first: str = ""
    how: str = ""
    outs: tuple[OutCheck, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    agreement: float | None = None
    tolerance: str = ""
    environment: tuple[EnvironmentChange, ...] = ()
    environment_known: bool = True
    venv: bool = False
    last_lines: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the commit's results may be believed, as far as the review has looked."""
        return self.verdict in ("identical", "equal", "left out")


# ── where it comes from ───────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Lineage:
    """Section 5, of the head.

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


# ── the whole ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Conflict:
    """What keeps the head from being merged into the base as it is now.

    Args:
        files: that both sides changed in the same place.
        lock: whether dvc.lock is one of them, or holds the marks of a merge.
    """

    files: tuple[str, ...]
    lock: bool


@dataclass(frozen=True)
class Review:
    """All that a review found.

    Args:
        head: what is reviewed.
        base: what it is held against: the last commit that both histories share; None: it has no results, so nothing
            can be compared.
        asked_base: the base as it was asked for.
        behind: commits of the asked base that the head does not have; they are no part of the review.
        changes: section 2; None without a base.
        effect: section 3; None where one side has no predictions.
        rebuild: section 4.
        lineage: section 5.
        gates: of the head's registration report: gate, value, limit, passed, reason.
        conflict: with the asked base; None: none.
        uncommitted: files of the checkout that differ from its HEAD, where that is what is reviewed.
        notes: anything else that a reader should know, a line each.
        failure: what went wrong on the base's side, so that nothing could be compared; nothing if all went well.
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
    conflict: Conflict | None = None
    uncommitted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failure: str = ""
