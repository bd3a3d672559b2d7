"""`review.md` and `review.html`: the same sections through two templates; foreign texts do nothing there.

Whatever a template puts out passes through one function per format, which removes secrets, cuts, and escapes: no
template has to remember it. Texts of rows were masked where they were read.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from flows.reviewing.findings import Review
from flows.reviewing.sections import Verbatim, sections_of
from flows.reviewing.verdict import Verdict, quoted
from flows.told.markdown import code, fenced, said
from stages.common.pages.environment import environment, fitted
from stages.common.redact import redacted
from stages.common.shown import READ, shown

# bytes, and rows of each table where there is room; GitHub takes comments of 65,536 characters
LIMITS = {"review.md.j2": (60_000, 40), "review.html.j2": (1_000_000, 200)}
SENTENCE = 1200  # characters
MARK = "<!-- attune-review -->"  # by which a workflow finds the comment that it wrote before
SIGNS = {"good": Markup("✓"), "warn": Markup("△"), "bad": Markup("✗")}

WORDS = {"better", "worse", "same", "unclear", "passed", "failed", "identical", "equal", "different", "missing"}


def render(review: Review, verdict: Verdict, *, markdown: bool) -> str:
    """Return a page; tables get shorter until it fits.

    Args:
        review: what was found.
        verdict: what it comes to.
        markdown: whether it is the comment for a pull request, or the page in one file.
    """
    name = "review.md.j2" if markdown else "review.html.j2"
    templates = environment(Path(__file__).parent)
    templates.finalize = in_markdown if markdown else in_html
    templates.filters["row"] = lambda row: Markup(" | ").join(map(_cell, row))
    template, sections = templates.get_template(name), sections_of(review)
    most, rows = LIMITS[name]
    known = {"review": review, "verdict": verdict, "sections": sections, "quoted": quoted, "mark": Markup(MARK)}  # noqa: S704
    known |= {"SIGNS": SIGNS, "WORDS": WORDS, "fenced": lambda lines: Markup(fenced(lines))}  # noqa: S704
    text = fitted(lambda listed: template.render(**known, listed=listed), rows, most)
    return re.sub(r"\n{3,}", "\n\n", text) if markdown else text


def in_markdown(value: Any) -> Markup:
    """Return a cell or sentence as Markdown: what is not a plain word, and what stands between backticks, as code."""
    return _written(value, lambda text: Markup(code(text)), _said)  # noqa: S704


def _cell(value: Any) -> Markup:
    """Return a cell of a Markdown table, in which a number begins no list."""
    return Markup(re.sub(r"^(\d+)\\", r"\1", in_markdown(value)))  # noqa: S704


def in_html(value: Any) -> Markup:
    """Return a cell or sentence as HTML; what stands between backticks as code."""
    return _written(value, lambda text: escape(_clean(text)), _prose)


def _written(value: Any, verbatim: Callable[[str], Markup], sentence: Callable[[str], Markup]) -> Markup:
    if isinstance(value, Markup):
        return value
    if isinstance(value, tuple):
        return Markup("<br>").join(_written(one, verbatim, sentence) for one in value)
    return verbatim(value) if isinstance(value, Verbatim) else sentence(str(value))


@lru_cache(50_000)  # pages are rendered again until they fit
def _said(sentence: str) -> Markup:
    return Markup(said(sentence[: SENTENCE * READ]))  # noqa: S704


@lru_cache(50_000)
def _prose(sentence: str) -> Markup:
    pieces = enumerate(_clean(sentence).split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(one) if at % 2 else escape(one) for at, one in pieces)


@lru_cache(50_000)
def _clean(text: str) -> str:
    return shown(redacted(str(text)[: SENTENCE * READ]), SENTENCE)
