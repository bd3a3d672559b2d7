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

from flows.reporting.markdown import said
from flows.reviewing.findings import Review
from flows.reviewing.sections import sections_of
from flows.reviewing.verdict import Verdict, quoted
from stages.common.display import READ, display
from stages.common.pages.templates import environment, fitted
from stages.common.redact import redacted

# bytes, and rows of each table where there is room; GitHub takes comments of 65,536 characters
LIMITS = {"review.md.j2": (60_000, 40), "review.html.j2": (1_000_000, 200)}
SENTENCE = 1200  # characters
MARK = "<!-- attune-review -->"  # by which a workflow finds the comment that it wrote before
SIGNS = {"good": Markup("✓"), "warn": Markup("△"), "bad": Markup("✗")}
WORDS = {"better", "worse", "same", "unclear", "passed", "failed", "identical", "equal", "different"}


def render(review: Review, verdict: Verdict, *, markdown: bool) -> str:
    """Return the comment for a pull request (Markdown), or the page in one file; tables get shorter until it fits."""
    name = "review.md.j2" if markdown else "review.html.j2"
    templates = environment(Path(__file__).parent)
    templates.finalize = lambda value: _written(value, _in_markdown if markdown else _in_html)
    # in a cell of a Markdown table, a number begins no list
    templates.filters["cell"] = lambda value: Markup(re.sub(r"^(\d+)\\", r"\1", _written(value, _in_markdown)))  # noqa: S704
    template, sections = templates.get_template(name), sections_of(review)
    most, rows = LIMITS[name]
    known = {"review": review, "verdict": verdict, "sections": sections, "quoted": quoted, "mark": Markup(MARK)}  # noqa: S704
    text = fitted(lambda listed: template.render(**known, SIGNS=SIGNS, WORDS=WORDS, listed=listed), rows, most)
    return re.sub(r"\n{3,}", "\n\n", text) if markdown else text


def _written(value: Any, sentence: Callable[[str], Markup]) -> Markup:
    """Return a cell or sentence with what stands between backticks as code; of a tuple, each on a line of its own."""
    if isinstance(value, tuple):
        return Markup("<br>").join(sentence(str(one)) for one in value)
    return value if isinstance(value, Markup) else sentence(str(value))


@lru_cache(50_000)  # pages are rendered again until they fit
def _in_markdown(sentence: str) -> Markup:
    return Markup(said(sentence[: SENTENCE * READ]))  # noqa: S704


@lru_cache(50_000)
def _in_html(sentence: str) -> Markup:
    pieces = enumerate(display(redacted(sentence[: SENTENCE * READ]), SENTENCE).split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(one) if at % 2 else escape(one) for at, one in pieces)
