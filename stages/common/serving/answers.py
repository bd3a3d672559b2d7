"""A request's JSON to texts, and the model's probabilities to answers.

Whatever a stranger sends is either answered or `Refused` with a short message; nothing of it is quoted at length.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stages.common.serving.classifier import Classifier

MAX_BYTES = 2**20  # a second of tokenizing at most, some hundred MiB of memory; more is work for flows.predict
MAX_TEXTS = 1000
FORMS = ("inputs", "instances", "dataframe_records", "dataframe_split")
COLUMNS = ("text", "text_pair")


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


def read_request(body: bytes) -> Question:
    """Read the body of a request.

    Raises:
        Refused: if it is not what docs/serving.md describes.
    """
    try:
        asked = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise Refused("the JSON is nested too deeply") from None
    except ValueError as error:  # of the decoding, of the JSON, or of a number with thousands of digits
        raise Refused(f"the body is no JSON in UTF-8: {_short(error)}") from None
    if not isinstance(asked, dict):
        raise Refused(f"the body must be an object with one of {', '.join(FORMS)}")
    given = [form for form in FORMS if form in asked]
    if len(given) != 1:
        raise Refused(f"the body must have exactly one of {', '.join(FORMS)}")
    if unknown := set(asked) - {given[0], "params"}:
        raise Refused(f"unknown key {_short(min(unknown))}: a body has {given[0]} and, if need be, params")
    rows = _columns_of_split(asked["dataframe_split"]) if given == ["dataframe_split"] else asked[given[0]]
    return read_question(rows, asked.get("params"))


def read_question(rows: Any, params: Any = None) -> Question:
    """Read rows and params, out of JSON or handed over in Python.

    Args:
        rows: a text; a list of texts or of objects with `text` and, if need be, `text_pair`; an object of columns.
        params: `top_k` and `threshold`, or None.

    Raises:
        Refused: if they are anything else.
    """
    texts, pairs = _texts(rows)
    if len(texts) > MAX_TEXTS:
        raise Refused(f"{len(texts)} texts in one request: send {MAX_TEXTS} at most")
    for at, text in enumerate([*texts, *(pairs or [])]):
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                raise Refused(f"row {at % len(texts)} has half a character (a lone surrogate)") from None
    return Question(texts, pairs, *_params(params))


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


def _texts(rows: Any) -> tuple[list[str], list[str] | None]:
    if isinstance(rows, str):
        rows = [rows]
    if isinstance(rows, Mapping):
        rows = _rows_of_columns(rows)
    if not isinstance(rows, list):
        raise Refused(f"rows must be a list, not {_kind(rows)}")
    if not any(isinstance(row, Mapping) for row in rows):
        return [_text(row, f"row {at}") for at, row in enumerate(rows)], None
    texts: list[str] = []
    pairs: list[str | None] = []
    for at, row in enumerate(rows):
        if not isinstance(row, Mapping) or "text" not in row:
            raise Refused(f"row {at} has no text: a row has text and, if need be, text_pair")
        if unknown := [name for name in row if name not in COLUMNS]:
            raise Refused(f"row {at}: unknown column {_short(unknown[0])}: a row has text and, if need be, text_pair")
        texts.append(_text(row["text"], f"row {at}: text"))
        pair = row.get("text_pair")
        pairs.append(None if pair is None else _text(pair, f"row {at}: text_pair"))
    given = any(pair is not None for pair in pairs)  # as in training: where some rows have one, "" stands in
    return texts, [pair or "" for pair in pairs] if given else None


def _rows_of_columns(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an object of columns; texts that are no list make one row."""
    lists = {name: values if isinstance(values, list) else [values] for name, values in columns.items()}
    if len({len(values) for values in lists.values()}) != 1:
        raise Refused("rows need a column text, and columns of one length")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _columns_of_split(table: Any) -> list[dict[str, Any]]:
    """Return the rows of pandas' `split` form: columns, data and perhaps an index, which says nothing here."""
    columns, data = (table.get(name) for name in ("columns", "data")) if isinstance(table, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(data, list) or set(map(_kind, columns)) != {"text"}:
        raise Refused("dataframe_split must be an object with columns (names) and data (a list of rows)")
    if any(not isinstance(row, list) or len(row) != len(columns) for row in data):
        raise Refused("dataframe_split: each row of data needs a value per column")
    return [dict(zip(columns, row, strict=True)) for row in data]


def _params(params: Any) -> tuple[int | None, float | None]:
    if params is None:
        return None, None
    if not isinstance(params, Mapping):
        raise Refused(f"params must be an object, not {_kind(params)}")
    if unknown := [name for name in params if name not in ("top_k", "threshold")]:
        raise Refused(f"unknown param {_short(unknown[0])}: there are top_k and threshold")
    top_k, threshold = params.get("top_k"), params.get("threshold")
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise Refused("top_k must be a whole number from 1")
    if threshold is not None and (
        not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0 <= threshold <= 1
    ):
        raise Refused("threshold must be a number from 0 to 1")
    return top_k, threshold


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise Refused(f"{where} is {_kind(value)}, not a text")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _short(value: object) -> str:
    return ascii(value)[:80] if isinstance(value, str) else str(value)[:120].splitlines()[0]


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
