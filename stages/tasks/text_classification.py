"""Text classification: one label out of several for each text or pair of texts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from stages.tasks.base import DIGITS, Answer, Task
from stages.tasks.decision import STRICT, Decision
from stages.tasks.evidence import Scores, ratio
from stages.tasks.inference import labels_of, longest_of
from stages.tasks.targets import parse_label
from stages.tasks.training import Space

if TYPE_CHECKING:
    import torch
    from polars import DataFrame, Series

    from stages.common.params import AugmentParams, CleanParams, EvaluateParams, FinetuneParams, IngestParams, Params


@dataclass(frozen=True, config=STRICT, kw_only=True)
class LabelDecision(Decision):
    """How probabilities become one label, or none.

    A threshold is the least calibrated probability at which a label is answered; a label without one always is.
    """

    labels: Annotated[list[str], Field(min_length=2)]  # in the order of the model's outputs
    temperature: Annotated[float, Field(gt=0)] = 1.0  # what logits are divided by (Guo et al. 2017)
    thresholds: dict[str, Annotated[float, Field(ge=0)]] = field(default_factory=dict)

    @model_validator(mode="after")
    def _names(self) -> Self:
        if len(set(self.labels)) < len(self.labels) or not set(self.thresholds) <= set(self.labels):
            raise ValueError("labels must be different from each other, and thresholds name some of them")
        return self

    def calibrated(self, outputs: np.ndarray) -> np.ndarray:
        """Return probabilities [n x k] as if their logits had been divided by the temperature."""
        if self.temperature == 1.0:
            return outputs
        return softmax(np.log(np.clip(outputs, 1e-300, None)) / self.temperature)

    def abstains(self, probabilities: np.ndarray, threshold: float | None = None) -> np.ndarray:
        """Return whether the likeliest label is below its threshold, or this one, by probabilities [n x k]."""
        thresholds = np.array([self.thresholds.get(label, 0.0) for label in self.labels])
        needed = thresholds[probabilities.argmax(axis=1)] if threshold is None else threshold
        return np.asarray(probabilities.max(axis=1, initial=0.0) < needed)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [n x k] float64 of logits [n x k]."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


class TextClassification(Task):
    """See the module."""

    name, problem_type = "text-classification", "single_label_classification"
    Decision = LabelDecision
    signature: ClassVar = {"label": "string?", "score": "double", "abstained": "boolean", "probabilities": "map"}

    # ── ingest, clean, augment: targets ──────────────────────────────────────────────────────────────────────────────
    def parse_target(self, cell: str, params: "IngestParams") -> str | None:
        """Return the label of a cell; a list of one thing is that thing."""
        return parse_label(cell, params)

    def label_issues(self, rows: "DataFrame", params: "CleanParams") -> "DataFrame | None":
        """Return the rows whose label a quick classifier doubts."""
        from stages.tasks.label_issues import of_classes

        return of_classes(rows, params.label_issues.min_confidence)

    def keeps_target(
        self, made: "DataFrame", train: "DataFrame", params: "AugmentParams", seed: int
    ) -> "Series | None":
        """Return why a quick classifier no longer finds the label of a new row the likeliest."""
        from stages.tasks.kept_targets import of_classes

        return of_classes(made, train, params.label_preservation.min_probability, seed)

    # ── tokenize, finetune ───────────────────────────────────────────────────────────────────────────────────────────
    def targets(self, labels: Sequence[str], space: Space) -> list[int]:
        """Return the class number of each label."""
        return [space["labels"][label] for label in labels]

    def loss_function(self, params: "FinetuneParams", space: Space, targets: Sequence[int]) -> Any:
        """Return cross entropy or focal loss, with the weights of the labels."""
        from stages.tasks import losses

        counts = np.bincount(targets, minlength=len(space["labels"])).tolist()
        return losses.for_classes(params, space["labels"], counts)

    def validation_scores(self, logits: np.ndarray, targets: np.ndarray, space: Space) -> dict[str, float]:
        """Return the scores of logits [n x k] against class numbers [n]."""
        classes = len(space["labels"])
        scores = self.scores(_hits_and_misses(targets.astype(np.int64), logits.argmax(axis=-1), classes).sum(axis=0))
        return {name: float(score) for name, score in scores.items()}

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def activate(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of each label, [n x k] float64."""
        return softmax(logits)

    def undecided(self, model: Path) -> LabelDecision:
        """Return the decision without temperature and thresholds."""
        return LabelDecision(task=self.name, labels=labels_of(model))

    def fit_decision(
        self, params: "EvaluateParams", labels: Sequence[str], outputs: np.ndarray, undecided: LabelDecision
    ) -> tuple[LabelDecision, Any]:
        """Fit a temperature, and the thresholds that are asked for."""
        from stages.tasks.calibration import fit_decision

        return fit_decision(params, class_numbers(labels, undecided.labels), outputs, undecided)

    def decide(self, outputs: np.ndarray, decision: LabelDecision, threshold: float | None = None) -> dict[str, Any]:
        """Return the likeliest label, its probability, whether it is below its threshold, and all probabilities."""
        return {
            "prediction": [decision.labels[index] for index in outputs.argmax(axis=1)],
            "confidence": outputs.max(axis=1, initial=0.0),
            "abstained": decision.abstains(outputs, threshold),
            "probabilities": outputs.tolist(),
        }

    def answers(self, outputs: np.ndarray, decision: Any, threshold: float | None, top_k: int | None) -> list[Answer]:
        """Return `label` (null: the model abstains), `score`, `abstained`, `probabilities`, the likeliest first."""
        result = []
        for row, below in zip(outputs.tolist(), decision.abstains(outputs, threshold).tolist(), strict=True):
            ranked = sorted(zip(decision.labels, row, strict=True), key=lambda pair: -pair[1])
            label, score = ranked[0]
            answer = {"label": None if below else label, "score": score, "abstained": below}
            result.append({**answer, "probabilities": dict(ranked[:top_k])})
        return result

    def drift_values(self, outputs: np.ndarray, decision: Any) -> dict[str, tuple[np.ndarray, list[str] | None]]:
        """Return the predicted labels, and how confident the model is of them."""
        confidence = outputs.max(axis=1, initial=0.0).round(DIGITS)  # so that a last digit moves no row to another bin
        return {"labels": (outputs.argmax(axis=1), decision.labels), "confidence": (confidence, None)}

    # ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def statistics(self, rows: "DataFrame", predictions: "DataFrame", names: Sequence[str]) -> Any:
        """Return of each row what it adds to the hits, misses and false alarms of each label, sparse [n x 3k]."""
        actual, predicted = (class_numbers(column, names) for column in (rows["label"], predictions["prediction"]))
        return _hits_and_misses(actual, predicted, len(names))

    def scores(self, sums: np.ndarray) -> Scores:
        """Return the scores of hits, misses and false alarms [... x 3k].

        A label without rows, or never predicted, counts with 0, as in scikit-learn's `zero_division=0`.
        """
        hits, actual, predicted = _counts(sums)
        rows = actual.sum(-1)
        f1 = ratio(2 * hits, actual + predicted)
        occurs = (actual + predicted) > 0  # scikit-learn averages over the labels that occur

        def macro(values: np.ndarray) -> np.ndarray:
            return (values * occurs).sum(-1) / occurs.sum(-1)

        return {
            "accuracy": hits.sum(-1) / rows,
            "macro_f1": macro(f1),
            "weighted_f1": (f1 * actual).sum(-1) / rows,
            "macro_precision": macro(ratio(hits, predicted)),
            "macro_recall": macro(ratio(hits, actual)),
        }

    def part_scores(self, sums: np.ndarray, names: Sequence[str]) -> Scores:
        """Return the F1 of each label from sums of statistics [... x 3k]."""
        hits, actual, predicted = _counts(sums)
        f1 = ratio(2 * hits, actual + predicted)
        return {name: f1[..., index] for index, name in enumerate(names)}

    def baseline(self, name: str, parts: Sequence["DataFrame"], base: Path, tuned: Path, _: Any) -> Sequence[str]:
        """Return what the commonest label, TF-IDF or a linear probe of the base model predicts."""
        from stages.tasks import baselines

        train, _, test = parts
        labels = sorted(train["label"].unique())
        numbers = class_numbers(train["label"], labels)
        return [labels[number] for number in baselines.classes(name, train, numbers, test, base, longest_of(tuned))]

    def label_quality(self, rows: "DataFrame", outputs: np.ndarray, decision: LabelDecision) -> np.ndarray:
        """Return half of what the label's probability is above that of the likeliest other one, plus a half.

        That is cleanlab's normalized margin. Near 0, another label fits much better.
        """
        from cleanlab.rank import get_label_quality_scores

        actual = class_numbers(rows["label"], decision.labels)
        return np.asarray(get_label_quality_scores(actual, outputs, method="normalized_margin").clip(0.0, 1.0))

    def moved(self, outputs: np.ndarray, decision: LabelDecision, expected: Sequence[str | None]) -> np.ndarray:
        """Return the probability of the expected label, [n]."""
        return outputs[np.arange(len(outputs)), class_numbers(expected, decision.labels)]

    def attribution_target(self, logits: "torch.Tensor", output: int) -> "torch.Tensor":
        """Return the log-odds of a label, [b]."""
        import torch

        others = torch.arange(logits.shape[1], device=logits.device) != output
        return logits[:, output] - logits[:, others].logsumexp(dim=1)

    def confusion(self, rows: "DataFrame", predictions: "DataFrame") -> "DataFrame":
        """Return label and prediction of each row."""
        return predictions.select(rows["label"].alias("actual"), predicted="prediction")

    def report(
        self, params: "Params", train: "DataFrame", rows: "DataFrame", raw: np.ndarray, decision: Any, fitted: Any
    ) -> "tuple[dict[str, Any], dict[str, DataFrame]]":
        """Return scores by label, calibration and thresholds; ROC, precision-recall and reliability curves."""
        from stages.tasks import calibration, curves

        actual, outputs = class_numbers(rows["label"], decision.labels), decision.calibrated(raw)
        settings = params.evaluate
        errors, diagram = calibration.calibration_report(actual, raw, outputs, settings.calibration.bins)
        entries = {
            "log_loss": curves.log_loss_of(actual, outputs),
            "per_class": curves.per_class(actual, outputs.argmax(axis=1), decision.labels),
            "calibration": {"temperature": decision.temperature, **errors},
            "thresholds": calibration.threshold_report(fitted, decision, actual, outputs),
        }
        tables = {
            "roc": curves.roc(actual, outputs, decision.labels),
            "precision_recall": curves.precision_recall(actual, outputs, decision.labels),
            "reliability": diagram,
        }
        return entries, tables

    def messages(self, entries: Mapping[str, Any]) -> list[str]:
        """Return the calibration error, and what the thresholds do."""
        from stages.tasks.calibration import threshold_messages

        line = "calibration error {ece_before:.4f}, {ece:.4f} at temperature {temperature}"
        return [line.format(**entries["calibration"]), *threshold_messages(entries["thresholds"])]


def class_numbers(names: "Collection[Any] | Series", labels: Sequence[str]) -> np.ndarray:
    """Return the class number of each label by its name, [n] int64."""
    number = {label: index for index, label in enumerate(labels)}
    return np.array([number[name] for name in names], dtype=np.int64)


def _hits_and_misses(actual: np.ndarray, predicted: np.ndarray, classes: int) -> Any:
    """Return a row's one hit, or one miss and one false alarm, in the columns of their labels, sparse [n x 3k]."""
    from scipy.sparse import csr_array

    rows, wrong = np.arange(len(actual)), actual != predicted
    columns = np.concatenate([actual + classes * wrong, 2 * classes + predicted[wrong]])
    places = np.concatenate([rows, rows[wrong]]), columns
    return csr_array((np.ones(len(columns)), places), shape=(len(actual), 3 * classes))


def _counts(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hits, rows and predictions of each label [... x k] of sums of statistics [... x 3k]."""
    hits, misses, false_alarms = np.split(np.asarray(sums, np.float64), 3, axis=-1)
    return hits, hits + misses, hits + false_alarms


TASK = TextClassification()
