"""`params.yaml`, section `evaluate`: what is scored, and what the scores are held against."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.common.errors import AttuneError
from stages.common.params.augment import Share
from stages.common.params.base import Section
from stages.common.params.templates import MOST, check_all_used, filled, of_test

Baseline = Literal["majority", "tfidf", "base_model"]
Invariance = Literal["typos", "names", "punctuation", "casing"]


class Bootstrap(Section):
    """Percentile bootstrap over the test rows (Efron & Tibshirani 1993)."""

    resamples: int = Field(2000, ge=100, le=100_000, description="How many times the test rows are drawn again.")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Share of resamples inside the interval.")


class Slices(Section):
    """Parts of the test set that are scored on their own."""

    length_bins: int = Field(4, ge=1, le=20, description="Bins of text length with equally many rows.")
    columns: list[str] = Field(["source"], description="What to slice by: source, group, or any of columns.extra.")
    min_rows: int = Field(20, ge=1, le=1_000_000, description="Smaller slices are left out: their scores are noise.")


class Calibration(Section):
    """Probabilities that mean what they say (Guo et al. 2017)."""

    temperature: bool = Field(True, description="Divide the logits by a number fitted on validation.")
    bins: int = Field(15, ge=2, le=100, description="Bins of confidence with equally many rows, for the ECE.")


class Thresholds(Section):
    """How sure the model has to be of a label, chosen on validation; below, it abstains."""

    metric: Literal["precision", "recall"] = Field("precision", description="What each label has to reach.")
    target: Share = Field(0.9, description="Least precision or recall of each label on validation.")


class MinimumTest(Section):
    """Texts that any usable model gets right (a minimum functionality test of CheckList)."""

    name: str = Field(min_length=1, max_length=60, description="Name of the test, for reports and gates.")
    label: str = Field(description="The label that each text must get.")
    texts: list[str] = Field(min_length=1, description="Texts; {word} is filled in from fill.")
    fill: dict[str, list[str]] = Field({}, description="Lists of words; every combination is tried.")

    @property
    def cases(self) -> list[str]:
        """The texts, filled in; each once."""
        return list(dict.fromkeys(text for template in self.texts for (text,) in filled([template], self.fill)))

    @model_validator(mode="after")
    def _fillable(self) -> Self:
        with of_test(self.name):
            check_all_used(self.texts, self.fill)
            if len(self.cases) > MOST:
                raise ValueError(f"fill makes {len(self.cases):,} texts, more than {MOST:,}: list fewer words")
        return self


class DirectionTest(Section):
    """Changes that must move the probability of a label one way, such as negation."""

    name: str = Field(min_length=1, max_length=60, description="Name of the test, for reports and gates.")
    label: str = Field(description="The label whose probability must move.")
    text: str = Field(description="A text; {word} is filled in from fill.")
    changed: str = Field(description="The same text, changed.")
    fill: dict[str, list[str]] = Field({}, description="Lists of words; every combination is tried.")
    moves: Literal["down", "up"] = Field("down", description="Where the label's probability must go.")
    margin: Share = Field(0.0, description="By how much at least.")

    @property
    def cases(self) -> list[tuple[str, str]]:
        """Each text and what it is changed to, filled in."""
        return [(text, changed) for text, changed in filled([self.text, self.changed], self.fill)]

    @model_validator(mode="after")
    def _fillable(self) -> Self:
        with of_test(self.name):
            check_all_used([self.text, self.changed], self.fill)
            for text, changed in self.cases:
                if text == changed:
                    raise ValueError(f"text and changed are both {text!r}: nothing can move")
        return self


class Behaviour(Section):
    """Tests of behaviour in the manner of CheckList (Ribeiro et al. 2020)."""

    rows: int = Field(300, ge=1, le=100_000, description="Test rows that invariances are tried on.")
    invariance: list[Invariance] = Field(
        ["typos", "names", "punctuation", "casing"], description="Changes under which the prediction must stay."
    )
    minimum: list[MinimumTest] = Field([], description="Texts that any usable model gets right.")
    direction: list[DirectionTest] = Field([], description="Changes that must move a probability one way.")

    @property
    def names(self) -> list[str]:
        """The names of all tests, in the order of the reports."""
        return [*self.invariance, *(test.name for test in self.minimum), *(test.name for test in self.direction)]

    def check_labels(self, labels: list[str]) -> None:
        """Check that the tests speak of labels that there are.

        Raises:
            AttuneError: naming the test and the label.
        """
        wanted = [(test.name, test.label) for test in self.minimum]
        wanted += [(test.name, test.label) for test in self.direction]
        for name, label in wanted:
            if label not in labels:
                raise AttuneError(
                    f"evaluate.behaviour, test {name!r}: there is no label {label!r}",
                    f"name one of the labels: {', '.join(labels)}",
                )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"two behavioural tests have the name {twice[0]!r}")
        return self


class Attributions(Section):
    """Which words a prediction rests on: integrated gradients (Sundararajan et al. 2017)."""

    errors: int = Field(12, ge=0, le=200, description="The most confident errors that are explained.")
    sample: int = Field(8, ge=0, le=200, description="Other test rows, drawn with the seed, that are explained.")
    steps: int = Field(32, ge=4, le=1000, description="Steps of the integral: more are more exact, slower.")


class EvaluateParams(Section):
    """Scores on the test split, and what they are compared with."""

    bootstrap: Bootstrap = Field(Bootstrap(), description="Intervals of the scores.")
    slices: Slices = Field(Slices(), description="Scores of parts of the test set.")
    baselines: list[Baseline] = Field(
        ["majority", "tfidf", "base_model"], description="Models that a fine-tuned one has to beat, on the same rows."
    )
    calibration: Calibration = Field(Calibration(), description="Probabilities that mean what they say.")
    thresholds: Thresholds | None = Field(None, description="Below them the served model abstains; null: never.")
    behaviour: Behaviour = Field(Behaviour(), description="What the model must do whatever its average score.")
    attributions: Attributions = Field(Attributions(), description="Which words predictions rest on.")
    examples: int = Field(20, ge=0, le=200, description="Texts that the page lists of each kind; 0: none.")
    mask_pii: bool = Field(True, description="Mask e-mail addresses, phone and card numbers on the page.")
