"""Templates in which whatever stems from the data is cut, masked and escaped."""

from collections.abc import Callable
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from stages.common.display import Mask, display

TEXT = 200  # characters shown of a text
NAME = 60  # of a label, a source, a rule


def environment(templates: Path, mask: Mask | None = None) -> Environment:
    """Return the templates of a folder, which may extend `base.html.j2` and import `macros.html.j2` from here.

    Filters: `text` and `name` for what stems from the data, `count` (1,234), `percent` (12.3 %), `plain` (no _).

    Args:
        templates: the folder.
        mask: replaces personal data in texts and names.
    """
    found = Environment(
        loader=ChoiceLoader([FileSystemLoader(templates), FileSystemLoader(Path(__file__).parent)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["count"] = lambda number: f"{number:,}"
    found.filters["percent"] = percent
    found.filters["text"] = lambda text: display(text, TEXT, mask)
    found.filters["name"] = lambda text: display(text, NAME, mask)
    found.filters["plain"] = lambda name: name.replace("_", " ")
    return found


def fitted(make: Callable[[int], str], examples: int, most: int) -> str:
    """Return a page of at most `most` bytes: with fewer examples, down to none, until it fits.

    Args:
        make: renders it with so many examples of each kind.
        examples: to begin with.
        most: bytes.
    """
    while True:
        html = make(examples)
        if len(html.encode()) <= most or examples == 0:
            return html
        examples //= 2


def percent(part: float, whole: float = 1.0) -> str:
    """Return a share such as 12.3 %, where next to nothing does not look like nothing."""
    if not part or not whole:
        return "0 %"
    share = 100 * part / whole
    return "< 0.1 %" if share < 0.1 else "100 %" if share == 100 else f"{share:.1f} %"
