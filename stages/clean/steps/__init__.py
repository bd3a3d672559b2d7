"""Make texts readable in small steps: a file each, strings in, strings out, each with a count of what it changed."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

from stages.clean.steps import chinese, encoding, entities, invisible, markdown, normalise, tags, whitespace
from stages.common import pii
from stages.common.params import CleanParams

PASSES = 10  # real texts settle in two or three


class Step(NamedTuple):
    """One change to texts; `apply` takes and returns a String column of the same length, null where nothing is left."""

    name: str
    apply: Callable[[pl.Series], pl.Series]


def steps(params: CleanParams) -> list[Step]:
    """Return the steps that are asked for, in the order that they are applied.

    Entities come before everything that looks for marks, so that `&lt;br&gt;` is a tag like any other; Markdown comes
    before tags, because `<https://example.org>` is a link there, and before white space, because it needs the lines;
    personal data come last, when numbers are no longer cut up by tags, odd blanks or zero-width characters.
    """
    asked = [Step("entities", entities.resolve), Step("encoding", encoding.repair), Step("invisible", invisible.remove)]
    if params.strip_markdown:
        asked.append(Step("markdown", markdown.strip))
    if params.strip_html:
        asked.append(Step("html", tags.strip))
    if params.simplify_chinese:
        asked.append(Step("chinese", chinese.simplify))
    asked.append(Step("normalise", lambda texts: normalise.to_form(texts, params.normalization)))
    asked.append(Step("whitespace", whitespace.collapse))
    if params.pii.kinds:
        asked.append(Step("pii", lambda texts: pii.mask(texts, params.pii.kinds, params.pii.phone_region)))
    return asked


def settle(texts: pl.Series, asked: list[Step]) -> tuple[pl.Series, dict[str, int]]:
    """Apply all steps again and again until no text changes any more, so that cleaning twice is cleaning once.

    What one step leaves can be work for an earlier one (`&<!-- -->amp;`, `<<b>b>`); only texts that changed are
    looked at again. A text that ten passes do not settle was built to do harm, and becomes null like an empty one.

    Args:
        texts: String, any length; nulls stay null.
        asked: the steps, from `steps`.

    Returns:
        The cleaned texts in the same order, null where nothing is left, and how many texts each step changed.
    """
    result, at = texts.clone(), np.arange(len(texts))
    touched = {step.name: np.zeros(len(texts), dtype=bool) for step in asked}
    current = texts
    for _ in range(PASSES):
        before = current
        for step in asked:
            after = step.apply(current)
            touched[step.name][at[current.ne_missing(after).to_numpy()]] = True
            current = after
        moved = before.ne_missing(current)
        at, current = at[moved.to_numpy()], current.filter(moved)
        if not len(at):
            break
        result = result.scatter(at, current)
    else:
        result = result.scatter(at, None)
    return result, {name: int(mask.sum()) for name, mask in touched.items()}
