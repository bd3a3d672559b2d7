"""The `evaluate` section: what is scored, and what the scores are compared with."""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from math import prod
from typing import Literal

from pydantic import Field

from stages.common.display import display, listed
from stages.common.errors import AttuneError
from stages.common.params.section import Faults, Section, Share, key

Invariance = Literal["typos", "names", "punctuation", "casing"]
WORD = re.compile(r"\{(\w+)\}")
MAX_TEXTS = 2000  # that one template may make


def _filled(templates: Sequence[str], fill: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the templates filled in with every combination of the words that they name; each result once.

    A ValueError if a word has nothing to be filled with, or there are too many combinations.
    """
    names = dict.fromkeys(name for template in templates for name in WORD.findall(template))
    if empty := [name for name in names if not fill.get(name)]:
        raise ValueError(f"{{{empty[0]}}} has no words in fill: add `{empty[0]}: [...]`")
    if (count := prod(len(fill[name]) for name in names)) > MAX_TEXTS:
        raise ValueError(f"fill makes {count:,} texts of {templates[0]!r}, more than {MAX_TEXTS:,}: list fewer words")
    choices = [dict(zip(names, words, strict=True)) for words in product(*(fill[name] for name in names))]
    texts = [tuple(WORD.sub(lambda match: words[match[1]], text) for text in templates) for words in choices]  # noqa: B023
    return list(dict.fromkeys(texts))


class Bootstrap(Section):
    """Percentile bootstrap over the test rows (Efron & Tibshirani 1993)."""

    resamples: int = key(2000, "How many times the test rows are drawn again.", ge=100, le=100_000)
    confidence: float = key(0.95, "Share of resamples inside the interval.", gt=0.5, lt=1.0)


class Slices(Section):
    """Parts of the test set that are scored on their own."""

    length_bins: int = key(4, "Bins of text length with equally many rows.", ge=1, le=20)
    columns: list[str] = key(["source"], "What to slice by: source, group, or any of columns.extra.")
    min_rows: int = key(20, "Smaller slices are left out: their scores are noise.", ge=1, le=1_000_000)


class Calibration(Section):
    """Probabilities that mean what they say (Guo et al. 2017)."""

    temperature: bool = key(True, "Divide the logits by a number fitted on validation.")
    bins: int = key(15, "Bins of confidence with equally many rows, for the ECE.", ge=2, le=100)


class Thresholds(Section):
    """How sure the model has to be of a label, chosen on validation; below, it abstains, or leaves the label out."""

    metric: Literal["precision", "recall", "f1"] | None = key(
        None, "What each label has to reach (precision, recall), or what is best (f1); null: precision, or else f1."
    )
    target: Share = key(0.9, "Least precision or recall of each label on validation.")
    per: Literal["label", "shared"] = key(
        "label", "A threshold for each label with enough validation rows, or one for all that they share."
    )


class MinimumTest(Section):
    """Texts that any usable model gets right (a minimum functionality test of CheckList)."""

    name: str = Field(min_length=1, max_length=60, description="Name of the test, for reports and gates.")
    label: str = Field(description="The label that each text must get.")
    texts: list[str] = Field(min_length=1, description="Texts; {word} is filled in from fill.")
    fill: dict[str, list[str]] = key({}, "Lists of words; every combination is tried.")

    @property
    def cases(self) -> list[str]:
        """The texts, filled in; each once."""
        return list(dict.fromkeys(text for template in self.texts for (text,) in _filled([template], self.fill)))

    def _faults(self) -> Faults:
        _ = self.cases  # raises where it cannot be filled in
        yield from ()


class DirectionTest(Section):
    """Changes that must move the probability of a label one way, such as negation."""

    name: str = Field(min_length=1, max_length=60, description="Name of the test, for reports and gates.")
    label: str = key("", "The label whose probability must move; left out where the label is a number, which moves.")
    text: str = Field(description="A text; {word} is filled in from fill.")
    changed: str = Field(description="The same text, changed.")
    fill: dict[str, list[str]] = key({}, "Lists of words; every combination is tried.")
    moves: Literal["down", "up"] = key("down", "Where the label's probability must go.")
    margin: float = key(0.0, "By how much at least.", ge=0.0)

    @property
    def cases(self) -> list[tuple[str, str]]:
        """Each text and what it is changed to, filled in."""
        return [(text, changed) for text, changed in _filled([self.text, self.changed], self.fill)]

    def _faults(self) -> Faults:
        if same := [text for text, changed in self.cases if text == changed]:
            yield "changed", f"is the same as text, {same[0]!r}: nothing can move"


class Behaviour(Section):
    """Tests of behaviour in the manner of CheckList (Ribeiro et al. 2020)."""

    rows: int = key(300, "Test rows that invariances are tried on.", ge=1, le=100_000)
    invariance: list[Invariance] = key(
        ["typos", "names", "punctuation", "casing"], "Changes under which the prediction must stay."
    )
    minimum: list[MinimumTest] = key([], "Texts that any usable model gets right.")
    direction: list[DirectionTest] = key([], "Changes that must move a probability one way.")

    @property
    def names(self) -> list[str]:
        """The names of all tests, in the order of the reports."""
        return [*self.invariance, *(test.name for test in self.minimum), *(test.name for test in self.direction)]

    def check_labels(self, labels: Collection[str]) -> None:
        """Check that the labels of the tests exist, if the task has such; an AttuneError names one that does not."""
        tests: list[MinimumTest | DirectionTest] = [*self.minimum, *self.direction]
        for test in tests:
            if labels and test.label not in labels:
                what = f"evaluate.behaviour, test {test.name!r}: there is no label {test.label!r}"
                names = listed([display(label, 60) for label in labels], 10)
                raise AttuneError(what, f"name one of the labels: {names}")

    def _faults(self) -> Faults:
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            yield (), f"two behavioural tests have the name {twice[0]!r}"


class Attributions(Section):
    """Which words a prediction rests on: integrated gradients (Sundararajan et al. 2017)."""

    errors: int = key(12, "The most confident errors that are explained.", ge=0, le=200)
    sample: int = key(8, "Other test rows, drawn with the seed, that are explained.", ge=0, le=200)
    steps: int = key(32, "Steps of the integral: more are more exact, slower.", ge=4, le=1000)


class Generation(Section):
    """Answers that a language model generates: greedily, the same each time."""

    rows: int = key(50, "Test rows that are answered, drawn by a hash of their ids; 0: none.", ge=0, le=100_000)
    max_new_tokens: int = key(64, "Tokens of an answer, at the most.", ge=1, le=32_768)


class EvaluateParams(Section):
    """Scores on the test split, and what they are compared with."""

    bootstrap: Bootstrap = key(Bootstrap(), "Intervals of the scores.")
    slices: Slices = key(Slices(), "Scores of parts of the test set.")
    baselines: list[str] | None = key(
        None, "Models that a fine-tuned one has to beat, on the same rows (docs/tasks.md); null: all of the task's."
    )
    calibration: Calibration = key(Calibration(), "Probabilities that mean what they say.")
    thresholds: Thresholds | None = key(None, "Below them the served model abstains; null: never.")
    conformal: float = key(
        0.9, "Share of the labels that are to lie inside the interval of a prediction.", gt=0.0, lt=1.0
    )
    max_width: float | None = key(None, "The served model abstains where the interval is wider; null: never.", gt=0.0)
    behaviour: Behaviour = key(Behaviour(), "What the model must do whatever its average score.")
    attributions: Attributions = key(Attributions(), "Which words predictions rest on.")
    generation: Generation = key(Generation(), "Answers that are generated and compared with the test rows' own.")
    answer: Literal["text", "choice", "json", "number"] = key(
        "text", "What answers are, to be compared: any text, one of those of the test rows, JSON, or their last number."
    )
    retention_rows: int = key(200, "General texts that are measured, of ingest.retention_texts.", ge=1, le=100_000)
    examples: int = key(20, "Texts that the page lists of each kind; 0: none.", ge=0, le=200)
    mask_pii: bool = key(True, "Mask e-mail addresses, phone and card numbers on the page.")
