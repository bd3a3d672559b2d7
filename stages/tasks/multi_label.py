"""Several labels: any number of them, or none, for each text or pair of texts.

A label's text is the sorted JSON list of its names, `["billing","urgent"]`; `[]` says that there is none.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from itertools import combinations, compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from stages.tasks.base import DIGITS, Answer, Task
from stages.tasks.decision import STRICT, Decision
from stages.tasks.evidence import Scores
from stages.tasks.inference import labels_of, longest_of
from stages.tasks.targets import canonical_set, parse_set, renamed_set
from stages.tasks.training import Space

if TYPE_CHECKING:
    from polars import DataFrame, Series

    from stages.common.params import AugmentParams, CleanParams, EvaluateParams, FinetuneParams, IngestParams, Params

NONE = "(none)"  # where a set has no label
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SetDecision(Decision):
    """How probabilities become a set of labels: a label is in it from its threshold on, its own or the shared one."""

    labels: Annotated[list[str], Field(min_length=1)]  # in the order of the model's outputs
    temperatures: dict[str, Annotated[float, Field(gt=0)]] = field(default_factory=dict)  # a label without one has 1
    threshold: Share = 0.5  # the least calibrated probability of a label without one of its own
    thresholds: dict[str, Share] = field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.labels)) < len(self.labels) or not {*self.temperatures, *self.thresholds} <= set(self.labels):
            raise ValueError("labels must be different from each other; temperatures and thresholds name some of them")
        return self

    def calibrated(self, outputs: np.ndarray) -> np.ndarray:
        """Return probabilities [n x k] as if each label's logits had been divided by its temperature."""
        temperatures = np.array([self.temperatures.get(label, 1.0) for label in self.labels])
        p = np.clip(outputs, 1e-300, 1 - 1e-16)
        return np.where(temperatures == 1.0, outputs, sigmoid((np.log(p) - np.log1p(-p)) / temperatures))

    def chosen(self, probabilities: np.ndarray) -> np.ndarray:
        """Return which labels are in the set of each row, [n x k] bool, by calibrated probabilities [n x k]."""
        return np.asarray(probabilities >= [self.thresholds.get(label, self.threshold) for label in self.labels])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probability of each logit, float64."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits.astype(np.float64))))


class MultiLabel(Task):
    """See the module."""

    name, problem_type = "multi-label", "multi_label_classification"
    Decision = SetDecision
    signature: ClassVar = {"labels": "any?", "score": "double", "abstained": "boolean", "probabilities": "map"}

    # ── ingest, clean, augment: targets ──────────────────────────────────────────────────────────────────────────────
    def parse_target(self, cell: str, params: "IngestParams") -> str | None:
        """Return the set that a cell lists; None if it lists missing values alone."""
        return parse_set(cell)

    def names(self, label: str) -> list[str]:
        """Return the labels of a set."""
        names: list[str] = json.loads(label)
        return names

    def renamed(self, label: str, names: Mapping[str, str | None]) -> str | None:
        """Return the set with other names; None if it had labels, and none of them is one."""
        return renamed_set(label, names)

    def strata(self, labels: "Series", params: "CleanParams") -> "Series":
        """Return each set's rarest label in these rows, the first by name of equally rare ones."""
        import polars as pl

        rows = self.named(labels)
        sets = {label: self.names(label) for label in labels.drop_nulls().unique()}
        rarest = {label: min(names, key=lambda name: (rows[name], name), default=NONE) for label, names in sets.items()}
        return labels.replace_strict(rarest, default=None, return_dtype=pl.String)

    def label_issues(self, rows: "DataFrame", params: "CleanParams") -> "DataFrame | None":
        """Return the rows of which a quick classifier doubts a label."""
        from stages.tasks.label_issues import of_sets

        return of_sets(rows, params.label_issues.min_confidence)

    def keeps_target(
        self, made: "DataFrame", train: "DataFrame", params: "AugmentParams", seed: int
    ) -> "Series | None":
        """Return why a quick classifier no longer finds the labels of a new row."""
        from stages.tasks.kept_targets import of_sets

        return of_sets(made, train, params.label_preservation.min_probability, seed)

    # ── tokenize, finetune ───────────────────────────────────────────────────────────────────────────────────────────
    def label_space(self, labels: "Series") -> dict[str, Any]:
        """Return the number of each label, and how many rows there are: all, and those with each, by number."""
        return {**super().label_space(labels), "rows": [len(labels), *self.named(labels).values()]}

    def build_model(self, base: Path, space: Space, params: "FinetuneParams", seed: int) -> Any:
        """Return the base model with a new head that begins with how frequent each label is (Lin et al. 2017, 4.1)."""
        from stages.tasks.encoder import output_layer
        from stages.tasks.losses import balanced

        model, of, rows = super().build_model(base, space, params, seed), space["rows"][0], np.array(space["rows"][1:])
        odds = (rows + 1) / (of - rows + 1) * (balanced(rows, of) if params.class_weights == "balanced" else 1)
        if (bias := output_layer(model).bias) is not None:
            bias.data.copy_(bias.new_tensor(np.log(odds)))
        return model

    def targets(self, labels: Sequence[str], space: Space) -> list[list[float]]:
        """Return 1.0 for each label in the set, 0.0 for each other."""
        result: list[list[float]] = self.indicators(labels, sorted(space["labels"])).astype(np.float64).tolist()
        return result

    def loss_function(self, params: "FinetuneParams", space: Space, targets: Sequence[Any]) -> Any:
        """Return binary cross entropy or focal loss, the mean over the labels."""
        from stages.tasks.losses import for_sets

        return for_sets(params, sorted(space["labels"]), targets)

    def validation_scores(self, logits: np.ndarray, targets: np.ndarray, space: Space) -> dict[str, float]:
        """Return all scores of logits [n x k] against 0 and 1 [n x k], with every threshold at 0.5."""
        from stages.tasks.set_decisions import scores_of

        return scores_of(targets > 0.5, logits > 0)

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def activate(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of each label, [n x k] float64."""
        return sigmoid(logits)

    def undecided(self, model: Path) -> SetDecision:
        """Return the decision without temperatures, with every threshold at 0.5."""
        return SetDecision(task=self.name, labels=labels_of(model))

    def fit_decision(
        self, params: "EvaluateParams", labels: Sequence[str], outputs: np.ndarray, undecided: Any
    ) -> tuple[Any, None]:
        """Fit a temperature for each label, and the thresholds that are asked for: what has the best F1.

        A label has a temperature and a threshold of its own if 20 rows have it, and the threshold only where it gains:
        chosen on one half of the rows, it has a better F1 on the other than the shared one.
        """
        from stages.tasks.set_decisions import fit_decision

        return fit_decision(params, self.indicators(labels, undecided.labels), outputs, undecided), None

    def decide(self, outputs: np.ndarray, decision: SetDecision, threshold: float | None = None) -> dict[str, Any]:
        """Return the set, the probability that it is right, whether that is below `threshold`, all probabilities.

        A set is right with the product of the probabilities of its labels, and of one minus those of the others: as if
        labels did not depend on each other. The thresholds of the decision belong to labels, and make no abstention.
        """
        chosen = decision.chosen(outputs)
        confidence = np.where(chosen, outputs, 1 - outputs).prod(axis=1)
        return {
            "prediction": [canonical_set(compress(decision.labels, row)) for row in chosen.tolist()],
            "confidence": confidence,
            "abstained": confidence < (0.0 if threshold is None else threshold),
            "probabilities": outputs.tolist(),
        }

    def answers(self, outputs: np.ndarray, decision: Any, threshold: float | None, top_k: int | None) -> list[Answer]:
        """Return `labels` (null: the model abstains), `score`, `abstained`, `probabilities`, the likeliest first."""
        decided, result = self.decide(outputs, decision, threshold), []
        columns = (outputs, decision.chosen(outputs), decided["confidence"], decided["abstained"])
        for row, chosen, score, below in zip(*(column.tolist() for column in columns), strict=True):
            ranked = sorted(zip(decision.labels, row, chosen, strict=True), key=lambda part: -part[1])
            labels = [{"label": label, "probability": probability} for label, probability, inside in ranked if inside]
            answer = {"labels": None if below else labels, "score": score, "abstained": below}
            result.append({**answer, "probabilities": {label: value for label, value, _ in ranked[:top_k]}})
        return result

    def drift_values(self, outputs: np.ndarray, decision: Any) -> dict[str, tuple[np.ndarray, list[str] | None]]:
        """Return the predicted labels of all rows, how many each row has, and how confident the model is."""
        chosen, names = decision.chosen(outputs), [*decision.labels, NONE]
        labels = np.nonzero(np.column_stack([chosen, ~chosen.any(axis=1)]))[1]
        confidence = self.decide(outputs, decision)["confidence"].round(DIGITS)
        counts = chosen.sum(axis=1).astype(np.float64)
        return {"labels": (labels, names), "labels a row": (counts, None), "confidence": (confidence, None)}

    # ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def statistics(self, rows: "DataFrame", predictions: "DataFrame", names: Sequence[str]) -> Any:
        """Return hits and errors of each label, whether the sets are equal, their F1, and 1: sparse [n x 2k+3].

        The Hamming loss divides by the number of `names`, so they are all that the model knows.
        """
        from stages.tasks.set_decisions import statistics

        return statistics(self.indicators(rows["label"], names), self.indicators(predictions["prediction"], names))

    def scores(self, sums: np.ndarray) -> Scores:
        """Return the scores of sums of statistics [... x 2k+3]."""
        from stages.tasks import set_decisions

        return set_decisions.scores(sums)

    def part_scores(self, sums: np.ndarray, names: Sequence[str]) -> Scores:
        """Return the F1 of each label from sums of statistics [... x 2k+3]."""
        from stages.tasks import set_decisions

        values = set_decisions.f1(*set_decisions.hits_and_errors(sums))
        return {name: values[..., index] for index, name in enumerate(names)}

    def slices(self, labels: "Series") -> list[list[str]]:
        """Return how many labels each row has, and which pairs; none for rows without labels, whose F1 is always 0."""
        sets = [self.names(label) for label in labels]
        pairs = [[f"pair: {first}, {other}" for first, other in combinations(names, 2)] for names in sets]
        return [[f"labels: {len(names)}", *some] if names else [] for names, some in zip(sets, pairs, strict=True)]

    def baseline(self, name: str, parts: Sequence["DataFrame"], base: Path, tuned: Path, _: Any) -> Sequence[str]:
        """Return the commonest set, or what TF-IDF or a linear probe of the base model says of each label alone.

        These share one threshold, the one with the best micro-F1 on validation.
        """
        from stages.tasks.set_decisions import baseline

        labels = self.names_in(parts[0]["label"])
        sets = [self.indicators(part["label"], labels) for part in parts[:2]]
        return baseline(name, labels, sets, parts, base, longest_of(tuned))

    def label_quality(self, rows: "DataFrame", outputs: np.ndarray, decision: SetDecision) -> np.ndarray:
        """Return cleanlab's score of a row: p of each label in its set, 1 - p of each other one, the worst counts most.

        That is their moving average from the best to the worst (Thyagarajan et al. 2022).
        """
        from cleanlab.multilabel_classification import get_label_quality_scores

        given = [np.flatnonzero(row).tolist() for row in self.indicators(rows["label"], decision.labels)]
        return np.asarray(get_label_quality_scores(given, outputs).clip(0.0, 1.0))

    def meets(self, kind: str, expected: "Series", predictions: "DataFrame") -> np.ndarray:
        """Return whether sets are equal (`invariance`), or have the label (`minimum`)."""
        if kind != "minimum":
            return super().meets(kind, expected, predictions)
        pairs = zip(expected, predictions["prediction"], strict=True)
        return np.array([label in self.names(found) for label, found in pairs], dtype=bool)

    def moved(self, outputs: np.ndarray, decision: SetDecision, expected: Sequence[str | None]) -> np.ndarray:
        """Return the probability of the expected label, or of the expected set, [n]."""
        from stages.tasks.set_decisions import moved

        return moved(outputs, decision.labels, expected)

    def report(
        self, params: "Params", train: "DataFrame", rows: "DataFrame", raw: np.ndarray, decision: Any, fitted: Any
    ) -> "tuple[dict[str, Any], dict[str, DataFrame]]":
        """Return scores by label, calibration, what thresholds gain, pairs never seen; tables of errors, and curves.

        Mean average precision is that of the labels that these rows have, without an interval: it cannot be added up.
        The calibration error is that of all yes-or-no decisions, a label of a row each.
        """
        from stages.tasks.set_decisions import report

        return report(params.evaluate, train["label"], self.indicators(rows["label"], decision.labels), raw, decision)

    def confusion(self, rows: "DataFrame", predictions: "DataFrame") -> "DataFrame":
        """Return each label that was found beside itself, and each that was missed beside each that was invented.

        "(none)" stands where a row misses labels and invents none, or the other way.
        """
        from stages.tasks.set_decisions import confusion

        return confusion(*(map(self.names, column) for column in (rows["label"], predictions["prediction"])))

    def messages(self, entries: Mapping[str, Any]) -> list[str]:
        """Return the calibration error, and what the thresholds gain."""
        errors, ways = entries["calibration"], entries["thresholds"]
        lines = [f"calibration error {errors['ece_before']:.4f}, {errors['ece']:.4f} with a temperature for each label"]
        if ways:
            names = {"half": "0.5 everywhere", "shared": "one for all", "chosen": "as chosen"}
            parts = [f"{ways[way]['micro_f1']:.4f}, {ways[way]['macro_f1']:.4f} {name}" for way, name in names.items()]
            lines.append(f"thresholds: micro-F1, macro-F1 {'; '.join(parts)}")
        return lines

    # ── its own ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def indicators(self, labels: "Collection[str] | Series", names: Sequence[str]) -> np.ndarray:
        """Return which of the names are in each set, [n x k] bool."""
        number = {name: index for index, name in enumerate(names)}
        result = np.zeros((len(labels), len(names)), dtype=bool)
        for row, label in enumerate(labels):
            result[row, [number[name] for name in self.names(label)]] = True
        return result


TASK = MultiLabel()
