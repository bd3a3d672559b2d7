"""What is predicted of a conversation, as JSON: numbers of its learnt tokens, and what a model answers itself.

The file goes into the registry with each model, to be served with it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from stages.tasks.conversations import learnt
from stages.tasks.decision import STRICT, Decision
from stages.tasks.evidence import Evidence, Scores, ratio

if TYPE_CHECKING:
    from polars import DataFrame

NUMBERS = ("nll", "tokens", "foreseen", "bytes")  # of a row: the model's outputs, in their order
DIGITS = 6  # significant ones, of a loss in float32
Said = Mapping[str, Any]  # NUMBERS, and answer, finish (`stop` or `length`), kind; either of both may be missing


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AnswerDecision(Decision):
    """How answers are generated and judged."""

    rows: Annotated[int, Field(ge=0)] = 0  # that are asked
    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    kind: Literal["text", "choice", "json", "number"] = "text"


def read(predictions: "DataFrame") -> list[Said]:
    """Return what predictions say."""
    return [json.loads(text) for text in predictions["prediction"]]


def joined(predictions: Iterable[str], answers: Iterable[Said]) -> list[str]:
    """Return predictions with answers in them; of a row that was not asked, there is nothing to add."""
    pairs = zip(predictions, answers, strict=True)
    return [json.dumps({**json.loads(text), **answer}, ensure_ascii=False) for text, answer in pairs]


def numbers(found: Sequence[Said]) -> np.ndarray:
    """Return NUMBERS of rows [n x 4] float64."""
    return np.array([[one[name] for name in NUMBERS] for one in found], np.float64).reshape(-1, len(NUMBERS))


def short(value: float) -> float:
    """Return a number with as many digits as it is known to."""
    return float(f"{value:.{DIGITS}g}")


def reference(label: str) -> str:
    """Return the last answer of a conversation that is learnt: what a model should say."""
    return questions_and_answers(label)[-1][1]


def questions_and_answers(label: str) -> list[tuple[str, str]]:
    """Return the answers of a conversation that are learnt, each with the question before it."""
    messages = json.loads(label)
    places = [place for place, part in enumerate(messages) if learnt(part)]
    return [(messages[place - 1]["content"], messages[place]["content"]) for place in places]


def agreeing(first: Sequence[Said], second: Sequence[Said]) -> np.ndarray:
    """Return whether losses of rows differ by no more than a hundredth, and answers are the same, [n] bool."""
    same = [one.get("answer") == other.get("answer") for one, other in zip(first, second, strict=True)]
    return np.isclose(numbers(first)[:, 0], numbers(second)[:, 0], rtol=0.01) & np.array(same, bool)


def evidence(labels: Iterable[str], found: Sequence[Said]) -> Evidence:
    """Return NUMBERS [n x 4] and the statistics of answers, as far as there are some."""
    parts: list[tuple[np.ndarray, Any]] = []
    if all("nll" in one for one in found):
        parts.append((numbers(found), token_scores))
    if any("answer" in one for one in found):
        from stages.tasks import answer_scores

        parts.append((answer_scores.statistics([reference(label) for label in labels], found), answer_scores.scores))
    ends = np.cumsum([part.shape[1] for part, _ in parts])

    def scores(sums: np.ndarray) -> Scores:
        pieces = zip(np.split(sums, ends[:-1], axis=-1), parts, strict=True)
        return {name: value for piece, (_, of) in pieces for name, value in of(piece).items()}

    return Evidence(np.hstack([part for part, _ in parts]), scores)


def token_scores(sums: np.ndarray) -> Scores:
    """Return loss a token (nats), bits per byte of the answers' UTF-8, perplexity, the share of foreseen tokens.

    Of sums of NUMBERS [... x 4]. Bits per byte compare models whose tokens differ, and leave the tokens that end turns
    to them.
    """
    nll, tokens, foreseen, size = np.moveaxis(sums, -1, 0)
    loss = ratio(nll, tokens)
    return {
        "nll": loss,
        "bits_per_byte": ratio(nll, size) / np.log(2),
        "perplexity": np.exp(loss),
        "token_accuracy": ratio(foreseen, tokens),
    }
