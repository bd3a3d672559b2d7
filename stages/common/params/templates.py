"""Texts with {word}s in them, which a behavioural test fills in."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod

WORD = re.compile(r"\{(\w+)\}")
MOST = 2000  # texts that one template may make


def filled(templates: Sequence[str], fill: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the templates with every combination of the words that they name, together; each combination once.

    Raises:
        ValueError: if a word has nothing to be filled with, or there are too many combinations.
    """
    names = list(dict.fromkeys(name for template in templates for name in WORD.findall(template)))
    for name in names:
        if not fill.get(name):
            raise ValueError(f"{{{name}}} has no words in fill: add `{name}: [...]`")
    count = prod(len(fill[name]) for name in names)
    if count > MOST:
        raise ValueError(f"fill makes {count:,} texts of {templates[0]!r}, more than {MOST:,}: list fewer words")
    made = []
    for words in product(*(fill[name] for name in names)):
        chosen = dict(zip(names, words, strict=True))
        made.append(tuple(WORD.sub(lambda found: chosen[found[1]], template) for template in templates))  # noqa: B023
    return list(dict.fromkeys(made))


def check_all_used(templates: Sequence[str], fill: Mapping[str, Sequence[str]]) -> None:
    """Check that every list of words has its place.

    Raises:
        ValueError: if no template names it.
    """
    named = {name for template in templates for name in WORD.findall(template)}
    for name in fill:
        if name not in named:
            raise ValueError(f"fill has words for {{{name}}}, which no text of the test names")


@contextmanager
def of_test(name: str) -> Iterator[None]:
    """Say in an error which test it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"test {name!r}: {error}") from None
