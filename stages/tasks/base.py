"""The questions that stages, server and flows ask a task, with the answers that suit most tasks.

A task is one module here, with a class of these hooks and an instance of it, `TASK`, and its facts in a file named as
on the Hub (see `stages/common/params/tasks.py`). The rest of the project never looks inside a label: the column
`label`, and `prediction` beside it, hold one canonical text each. docs/architecture.md says which stage asks what.

What is imported at the top of a task's module goes into the registry with each model, to be served with it: numpy,
pydantic, and files that are listed in `stages/tracking/package.py`. All else is imported in the hook that needs it.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stages.tasks.decision import Decision
from stages.tasks.evidence import Evidence, Scores
from stages.tasks.generating import GeneratingTask

if TYPE_CHECKING:
    import torch
    from polars import DataFrame, Series

    from stages.common.params import (
        AugmentParams,
        CleanParams,
        EvaluateParams,
        IngestParams,
        Params,
    )
    from stages.common.text.cleaning import TextCleaning

DIGITS = 6
Answer = dict[str, Any]


class Refused(ValueError):
    """A cell that holds no target: its row is rejected under the rule, with this as the reason."""

    def __init__(self, reason: str, rule: str = "bad_target") -> None:
        super().__init__(reason)
        self.rule = rule


class Task(GeneratingTask):
    """A task of one output vector per text or pair of texts; others replace `encode`, `build_model` and `predict`."""

    name: ClassVar[str]  # as in params.yaml
    Decision: ClassVar[Any] = Decision  # the class of its `decision.json`
    # What an answer holds, by key: string, double, boolean, map or any, with a ? where it may be null
    signature: ClassVar[dict[str, str]]
    example: ClassVar[list[str]] = ["A film that stays with you.", "Two hours I will not get back."]  # of texts to ask
    width: ClassVar[int] = 0  # outputs of the model; 0: one for each of its labels
    several_targets: ClassVar[bool] = False  # of equal texts are legal: rows are the same by text and label

    # ── ingest, clean, augment: targets ──────────────────────────────────────────────────────────────────────────────
    def parse_target(self, cell: str, params: "IngestParams") -> str | None:
        """Return the canonical text of a cell of the label column, of which there are many spellings; None: no target.

        It is never asked of an empty cell. What only says that a value is missing (`NULL`) is a name like others; where
        it is refused, or holds no name, the row counts as one without a target. Anything else is Refused, with the
        reason: its row is rejected. An AttuneError, before which the place is put, if no row at all can be trusted.
        """
        return cell

    def columns_of(self, shape: str, text: str | None, label: str | None) -> tuple[dict[str, str], set[str]]:
        """Return the columns of a shape of conversations by what they hold, and which of these there must be.

        The two are those of params, if any. Of each row, the cells are JSON by what they hold, with the `shape`, for
        `parse_target`. Only tasks on conversations are asked.
        """
        raise NotImplementedError

    def texts(self, labels: "Series") -> "Series":
        """Return the text that each label has, if rows have none of their own; null where there is no label."""
        raise NotImplementedError

    def said(self, labels: "Series") -> "Series":
        """Return what targets say, where equal texts may have several: rows are the same by both."""
        return labels

    def cleaned(self, labels: "Series", cleaning: "TextCleaning") -> "Series":
        """Return the labels of rows whose texts are cleaned so; as they are, by default."""
        return labels

    def grouped(self, records: "DataFrame", params: "CleanParams") -> "DataFrame":
        """Return records in which `group` also holds together what must not be torn over splits."""
        return records

    def names(self, label: str) -> list[str]:
        """Return the names of classes that a canonical label holds: what params may map, and what reports count."""
        return [label]

    def renamed(self, label: str, names: Mapping[str, str | None]) -> str | None:
        """Return a label that holds names with others for them; None stands for a name that is none, a label too."""
        return names[label]

    def merged(self, labels: Collection[str], params: "CleanParams") -> str | None:
        """Return the one target of rows with the same text and these different labels; None: they contradict."""
        return None

    def strata(self, labels: "Series", params: "CleanParams") -> "Series":
        """Return the name of what splits, folds and balancing give its share of to each side, one a row."""
        return labels

    def settled(self, labels: "Series", params: "CleanParams") -> "CleanParams":
        """Return the params with what the labels of all rows tell (deciles), for the same strata in parts of them."""
        return params

    def named(self, labels: "Series") -> dict[str, int]:
        """Return how many rows there are of each name, in their order."""
        rows = Counter[str]()
        for label, count in labels.drop_nulls().value_counts().iter_rows():
            rows.update(dict.fromkeys(self.names(label), count))
        return dict(sorted(rows.items()))

    def counts(self, labels: "Series", params: "CleanParams") -> dict[str, int]:
        """Return how many rows there are of each name (else of each stratum), in their order."""
        return self.named(labels) or dict(self.strata(labels, params).value_counts().sort(labels.name).iter_rows())

    def label_issues(self, rows: "DataFrame", params: "CleanParams") -> "DataFrame | None":
        """Return the rows whose target looks wrong, with what it rather is: `suggested`, and how sure: `confidence`.

        Rows are CleanRecords of all splits, with `split` and `fold`: who judges a row of train has seen no other of its
        fold, and who judges the rest, whose fold is -1, has seen the whole of train. None: this is not offered.
        """
        return None

    def keeps_target(
        self, made: "DataFrame", train: "DataFrame", params: "AugmentParams", seed: int
    ) -> "Series | None":
        """Return why a new row, made of the row `parent`, lost its target; null: it has it. None: nobody looks."""
        return None

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def load(self, model: Path) -> Any:
        """Return a saved model, in float32 and for evaluation, whose `logits` [b x k] are the outputs of rows."""
        from stages.tasks.inference import load_classifier

        return load_classifier(model)

    def tokens(self, model: Path) -> Any:
        """Return what makes token ids of texts for `load`ed models, as TransformersTokens of serving; None: that."""
        return None

    def asked(self, rows: "DataFrame") -> "tuple[list[str], list[str] | None]":
        """Return what the model is asked of each record: its text, and its second one if any record has one."""
        from stages.tasks.inference import texts_and_pairs

        return texts_and_pairs(rows)

    def prepared(self, texts: list[str], cleaning: "TextCleaning") -> list[str]:
        """Return texts of a request as training data were cleaned; a ValueError if one is none of the task."""
        return cleaning.texts(texts)

    def profiled(self, texts: "Series") -> "Series":
        """Return of texts of requests what a record has as its text, by which drift is measured."""
        return texts

    def activate(self, logits: np.ndarray) -> np.ndarray:
        """Return the outputs [n x k] float64 of logits: probabilities, values."""
        return logits.astype(np.float64)

    def undecided(self, model: Path) -> Any:
        """Return the decision of a model of which nothing was fitted, by its folder."""
        return self.Decision(task=self.name)

    def fit_decision(
        self, params: "EvaluateParams", labels: Sequence[str], outputs: np.ndarray, undecided: Any
    ) -> tuple[Any, Any]:
        """Fit on validation what turns outputs [n x k] into answers; return it, and what `report` has to know."""
        return undecided, None

    def decide(self, outputs: np.ndarray, decision: Any, threshold: float | None = None) -> dict[str, Any]:
        """Return the columns of the predictions of calibrated outputs [n x k], each [n].

        `prediction` is canonical text, `confidence` float64 of 0 to 1 (None: the task has none), `abstained` bool; then
        the task's own. `threshold` is one for all answers, instead of the decision's own.
        """
        raise NotImplementedError

    def answers(self, outputs: np.ndarray, decision: Any, threshold: float | None, top_k: int | None) -> list[Answer]:
        """Return what the server says of calibrated outputs [n x k], JSON-able; the keys are those of `signature`."""
        raise NotImplementedError

    def blank_answer(self, answer: Answer) -> Answer:
        """Return the answer to a text in which there is nothing to read: an abstention."""
        none = {name: None for name, kind in self.signature.items() if "?" in kind}
        return {**answer, **none, "abstained": True}

    def table(self, outputs: np.ndarray, decision: Any, threshold: float | None) -> dict[str, Any]:
        """Return the columns of a batch prediction, each [n], with `abstained`; here, those of label probabilities."""
        decided, rounded = self.decide(outputs, decision, threshold), outputs.round(DIGITS)
        answers = zip(decided["prediction"], decided["abstained"], strict=True)
        return {
            next(iter(self.signature)): [None if below else answer for answer, below in answers],
            "score": decided["confidence"].round(DIGITS),
            "abstained": decided["abstained"],
            **{f"probability_{label}": rounded[:, index] for index, label in enumerate(decision.labels)},
        }

    def drift_values(self, outputs: np.ndarray, decision: Any) -> dict[str, tuple[np.ndarray, list[str] | None]]:
        """Return what drift of answers is measured on, by what it is called.

        Numbers of bins with the names of these, [m] int64; or values whose deciles become the bins, [n] float64.
        """
        return {"outputs": (outputs[:, 0], None)}

    # ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def statistics(self, rows: "DataFrame", predictions: "DataFrame", names: Sequence[str]) -> Any:
        """Return additive statistics of each row, [n x m] float64, sparse where wide.

        `rows` have the column `label`, `predictions` those of `decide`; `names` is of `names_in`.
        """
        raise NotImplementedError

    def scores(self, sums: np.ndarray) -> Scores:
        """Return all scores that can be computed from sums of statistics [... x m], each [...]."""
        raise NotImplementedError

    def part_scores(self, sums: np.ndarray, names: Sequence[str]) -> Scores:
        """Return the score of each name from sums of statistics [... x m] (F1 of a label); none by default."""
        return {}

    def slices(self, labels: "Series") -> list[list[str]]:
        """Return the names of the slices that each row is in by its label, beside those of params; none by default."""
        return [[]] * len(labels)

    def is_correct(self, rows: "DataFrame", predictions: "DataFrame") -> np.ndarray:
        """Return whether each prediction counts as right, [n] bool: for McNemar, improved and regressed rows."""
        return (rows["label"] == predictions["prediction"]).to_numpy()

    def agreeing(self, first: "DataFrame", second: "DataFrame") -> np.ndarray:
        """Return whether two predictions of a row count as the same, [n] bool: of exported forms, of a rebuild."""
        return (first["prediction"] == second["prediction"]).to_numpy()

    def baseline(
        self, name: str, parts: Sequence["DataFrame"], base: Path, tuned: Path, decision: Any
    ) -> Sequence[str] | None:
        """Return what a baseline of the facts predicts for the test rows, as canonical texts; None: it needs others.

        The parts are train, validation (on which is fitted what has to be) and test, all with text, text_pair and
        label; test has the model's predictions too. The base model is measured on as many tokens as the tuned one.
        """
        raise NotImplementedError

    def label_quality(self, rows: "DataFrame", outputs: np.ndarray, decision: Any) -> np.ndarray:
        """Return how well each label fits what the model says of the row, 0 to 1, [n]: near 0, it may be a mistake."""
        raise NotImplementedError

    def meets(self, kind: str, expected: "Series", predictions: "DataFrame") -> np.ndarray:
        """Return whether predictions are as behavioural cases expect, [n] bool.

        Of the kind `invariance`, the expected one is the prediction before the change; of `minimum`, what params name.
        """
        return (predictions["prediction"] == expected).to_numpy()

    def moved(self, outputs: np.ndarray, decision: Any, expected: Sequence[str | None]) -> np.ndarray:
        """Return the number that a change of the text moves, [n] float64: the probability of `expected`, the value."""
        return outputs[:, 0]

    def explained(self, outputs: np.ndarray) -> np.ndarray:
        """Return which output attributions explain, [n] int64."""
        return outputs.argmax(axis=1)

    def attribution_target(self, logits: "torch.Tensor", output: int) -> "torch.Tensor":
        """Return the number [b] of logits [b x k] that is attributed to words."""
        return logits[:, output]

    def report(
        self, params: "Params", train: "DataFrame", rows: "DataFrame", raw: np.ndarray, decision: Any, fitted: Any
    ) -> "tuple[dict[str, Any], dict[str, DataFrame]]":
        """Return what else is to be said of the test rows: entries of `reports/scores.json`, and tables for plots.

        `raw` are the outputs [n x k] before they are calibrated, `fitted` is what `fit_decision` returned of itself.
        """
        return {}, {}

    def readable(self, rows: "DataFrame") -> "DataFrame":
        """Return rows with labels and predictions as a page shows them to people."""
        return rows

    def confusion(self, rows: "DataFrame", predictions: "DataFrame") -> "DataFrame | None":
        """Return which label was taken for which: actual, predicted, a row each time; None: there is no such thing."""
        return None

    def messages(self, entries: Mapping[str, Any]) -> list[str]:
        """Return what the terminal says of the entries of `report`."""
        return []

    def names_in(self, *labels: "Series") -> list[str]:
        """Return the names of classes that labels or predictions hold, in their order."""
        return sorted({name for some in labels for label in some.drop_nulls().unique() for name in self.names(label)})

    def evidence(self, rows: "DataFrame", predictions: "DataFrame", names: Sequence[str] | None = None) -> Evidence:
        """Return what scores are computed from; `names` are those of the training labels, None: those that occur."""
        known = self.names_in(rows["label"], predictions["prediction"]) if names is None else names
        return Evidence(self.statistics(rows, predictions, known), self.scores)
