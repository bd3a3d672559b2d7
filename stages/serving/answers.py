"""A request's JSON to texts, and the model's outputs to answers."""

from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stages.serving.backends import Predictor
from stages.tasks.base import Task

MAX_TEXTS = 1000
TOO_HIGH = "Input should be less than or equal to 1"
COLUMNS = (["text"], ["text", "text_pair"], ["text_pair", "text"])


class Question(NamedTuple):
    """Texts, the second one of each if any has one, and how to answer them."""

    texts: list[str]
    pairs: list[str] | None = None
    top_k: int | None = None  # labels that are listed, the likeliest first; None: all
    threshold: float | None = None  # least probability of an answer, instead of the model's own


def _rows(given: Any) -> Any:
    """Return texts, or rows in pandas' `split` form, as objects; anything else stays, and is refused by its type."""
    if isinstance(given, dict):
        names, rows = given.get("columns"), given.get("data")
        if names not in COLUMNS or not isinstance(rows, list):
            raise ValueError("must be a list of texts or rows, or have columns (text, or text and text_pair) and data")
        return [
            dict(zip(names, row, strict=True)) if isinstance(row, list) and len(row) == len(names) else row
            for row in rows
        ]
    if isinstance(given, list):
        return [row if isinstance(row, dict) else {"text": row} for row in given]
    return given


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")  # a null or a number is no text


class _Row(_Strict):
    text: str
    text_pair: str | None = None


class _Params(_Strict):
    top_k: int | None = Field(None, ge=1)
    threshold: float | None = Field(None, ge=0)


_Rows = Annotated[list[_Row], Field(max_length=MAX_TEXTS), BeforeValidator(_rows)]


class _Body(_Strict):
    inputs: _Rows = []
    instances: _Rows = []
    dataframe_records: _Rows = []
    dataframe_split: _Rows = []
    params: _Params | None = None


def read_question(body: bytes | dict[str, Any], task: Task) -> Question:
    """Read the body of a request to a model of the task, as docs/serving.md describes it, in JSON or Python's lists.

    A ValueError has a short message for whoever sent it, which quotes no text.
    """
    try:
        read = _Body.model_validate_json(body) if isinstance(body, bytes) else _Body.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(ascii(part).strip("'")[:40] for part in first["loc"])
        raise ValueError(f"{place}{': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"[:190]) from None
    forms = read.model_fields_set - {"params"}
    if len(forms) != 1:
        raise ValueError("the body must have exactly one of inputs, instances, dataframe_records, dataframe_split")
    rows: list[_Row] = getattr(read, forms.pop())
    params, pairs = read.params or _Params(), None
    if too_high(params.threshold, task):
        raise ValueError(f"params.threshold: {TOO_HIGH}")
    if any(row.text_pair is not None for row in rows):
        pairs = [row.text_pair or "" for row in rows]  # "" stands in for those without, as in training
    return Question([row.text for row in rows], pairs, params.top_k, params.threshold)


def answers(predictor: Predictor, question: Question) -> list[dict[str, Any]]:
    """Return an answer per text, as the task says it; one with nothing to read in it gets none."""
    texts, pairs = question.texts, question.pairs
    task = predictor.task
    if predictor.cleaning:  # as the model's training data were
        texts, pairs = task.prepared(texts, predictor.cleaning), predictor.cleaning.texts(pairs) if pairs else None
    outputs = predictor.outputs(texts, pairs)
    given = task.answers(outputs, predictor.decision, question.threshold, question.top_k)
    for name, column in task.replies(predictor, texts).items():
        given = [{**answer, name: value} for answer, value in zip(given, column, strict=True)]
    return [task.blank_answer(answer) if blank(text) else answer for text, answer in zip(texts, given, strict=True)]


def too_high(threshold: float | None, task: Task) -> bool:
    """Return whether no score reaches the threshold. Of answers without a score it is a width, which may be any."""
    return threshold is not None and threshold > 1 and "score" in task.signature


def blank(text: str) -> bool:
    """Return whether there is nothing to see: spaces, control characters and marks of direction alone."""
    return not any(character.isprintable() and character != " " for character in text)
