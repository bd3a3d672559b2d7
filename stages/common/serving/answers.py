"""A request's JSON to texts, and the model's probabilities to answers.

Whatever is sent is either answered or `Refused` with a short message that quotes no text of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stages.common.serving.classifier import Classifier

MAX_BYTES = 2**20  # a second of tokenizing at most, some hundred MiB of memory; more is work for flows.predict
MAX_TEXTS = 1000
FORMS = ("inputs", "instances", "dataframe_records", "dataframe_split")
COLUMNS = (["text"], ["text", "text_pair"], ["text_pair", "text"])


class Refused(ValueError):
    """What was sent cannot be answered; the message is for whoever sent it."""


@dataclass(frozen=True)
class Question:
    """Texts and how to answer them.

    Args:
        texts: what is classified.
        pairs: the second text of each, or None where no row has one.
        top_k: how many of the likeliest labels are listed with their probability; None: all.
        threshold: least probability of an answer, instead of the model's own.
    """

    texts: list[str]
    pairs: list[str] | None = None
    top_k: int | None = None
    threshold: float | None = None

    def parts(self, size: int) -> Iterator["Question"]:
        """Yield the same question about `size` texts at a time."""
        for start in range(0, len(self.texts), size):
            pairs = self.pairs[start : start + size] if self.pairs else None
            yield replace(self, texts=self.texts[start : start + size], pairs=pairs)


def _rows(given: Any) -> Any:
    """Return a text, texts or an object of columns as rows; anything else as it is, to be refused."""
    if isinstance(given, str):
        given = [given]
    if isinstance(given, dict) and given:
        lists = [values if isinstance(values, list) else [values] for values in given.values()]
        if len({len(values) for values in lists}) > 1:
            raise ValueError("the columns must have one length")
        return [dict(zip(given, row, strict=True)) for row in zip(*lists, strict=True)]
    if isinstance(given, list) and not any(isinstance(row, dict) for row in given):
        return [{"text": text} for text in given]
    return given


def _rows_of_split(given: Any) -> Any:
    """Return pandas' `split` form (columns, data and perhaps an index, which says nothing here) as rows."""
    columns, data = (given.get(name) for name in ("columns", "data")) if isinstance(given, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(data, list) or columns not in COLUMNS:
        raise ValueError("columns must name text and, if need be, text_pair, and data must be a list of rows")
    if any(not isinstance(row, list) or len(row) != len(columns) for row in data):
        raise ValueError("each row of data needs a value per column")
    return [dict(zip(columns, row, strict=True)) for row in data]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")  # a null or a number is no text


class _Row(_Strict):
    text: str
    text_pair: str | None = None


class _Params(_Strict):
    top_k: int | None = Field(None, ge=1)
    threshold: float | None = Field(None, ge=0, le=1)


_Rows = Annotated[list[_Row], Field(max_length=MAX_TEXTS)]


class _Body(_Strict):
    inputs: Annotated[_Rows, BeforeValidator(_rows)] = []
    instances: Annotated[_Rows, BeforeValidator(_rows)] = []
    dataframe_records: Annotated[_Rows, BeforeValidator(_rows)] = []
    dataframe_split: Annotated[_Rows, BeforeValidator(_rows_of_split)] = []
    params: _Params | None = None

    def question(self) -> Question:
        given = [form for form in FORMS if form in self.model_fields_set]
        if len(given) != 1:
            raise Refused(f"the body must have exactly one of {', '.join(FORMS)}")
        rows: list[_Row] = getattr(self, given[0])
        paired = any(row.text_pair is not None for row in rows)  # "" stands in for those without, as in training
        pairs = [row.text_pair or "" for row in rows] if paired else None
        params = self.params or _Params()
        return Question([row.text for row in rows], pairs, params.top_k, params.threshold)


def read_request(body: bytes) -> Question:
    """Read the body of a request.

    Raises:
        Refused: if it is not what docs/serving.md describes.
    """
    with _refused():
        return _Body.model_validate_json(body).question()


def read_question(rows: Any, params: Any = None) -> Question:
    """Read rows and params that are handed over in Python.

    Args:
        rows: a text; a list of texts or of objects with `text` and, if need be, `text_pair`; an object of columns.
        params: `top_k` and `threshold`, or None.

    Raises:
        Refused: if they are anything else.
    """
    with _refused():
        return _Body(inputs=rows, params=params).question()


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]  # the input has texts of the data
        place = ".".join(ascii(part).strip("'")[:40] for part in first["loc"])
        raise Refused(f"{place}{': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"[:190]) from None


def answers(classifier: Classifier, question: Question) -> list[dict[str, Any]]:
    """Return an answer per text: `label`, `score`, `abstained` and `probabilities` by label, the likeliest first.

    The label is null where the model abstains: below its threshold, or if there is nothing to read in the text.
    """
    texts, pairs = question.texts, question.pairs
    if classifier.cleaning:  # as the model's training data were
        texts, pairs = classifier.cleaning.texts(texts), classifier.cleaning.texts(pairs) if pairs else None
    found = classifier.probabilities(texts, pairs)
    abstained = classifier.decision.abstains(found, question.threshold)
    labels, result = classifier.labels, []
    for at, text in enumerate(texts):
        ranked = sorted(zip(found[at].tolist(), labels, strict=True), key=lambda pair: -pair[0])
        silent = bool(abstained[at]) or blank(text)
        result.append(
            {
                "label": None if silent else ranked[0][1],
                "score": ranked[0][0],
                "abstained": silent,
                "probabilities": {label: probability for probability, label in ranked[: question.top_k]},
            }
        )
    return result


def blank(text: str) -> bool:
    """Return whether there is nothing to see: spaces, control characters and marks of direction alone."""
    return not any(character.isprintable() and character != " " for character in text)
