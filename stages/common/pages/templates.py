"""Jinja templates in which whatever comes out of the data is cut, masked and escaped."""

from collections.abc import Callable
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from stages.common.display import Mask, display

TEXT = 200  # characters shown of a text
NAME = 60  # of a label, a source, a rule


def environment(templates: Path, mask: Mask | None = None) -> Environment:
    """Return the templates of a folder, which may extend `base.html.j2` and import `macros.html.j2` from here.

    Filters: `text` and `name` for what comes out of the data, `count` (1,234), `percent` (12.3 %), `plain` (no _).
    `mask` replaces personal data in texts and names.
    """
    jinja = Environment(
        loader=ChoiceLoader([FileSystemLoader(templates), FileSystemLoader(Path(__file__).parent)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters["count"] = lambda number: f"{number:,}"
    jinja.filters["percent"] = percent
    jinja.filters["text"] = lambda text: display(text, TEXT, mask)
    jinja.filters["name"] = lambda text: display(text, NAME, mask)
    jinja.filters["plain"] = lambda name: name.replace("_", " ")
    return jinja


def fitted(make: Callable[[int], str], examples: int, most: int) -> str:
    """Return a page of at most `most` bytes: examples of each kind are halved, down to none, until it fits."""
    while True:
        html = make(examples)
        if len(html.encode()) <= most or examples == 0:
            return html
        examples //= 2


def percent(part: float, whole: float = 1.0) -> str:
    """Return a share such as 12.3 %; a tiny one is < 0.1 % and not 0 %."""
    if not part or not whole:
        return "0 %"
    share = 100 * part / whole
    return "< 0.1 %" if share < 0.1 else "100 %" if share == 100 else f"{share:.1f} %"
