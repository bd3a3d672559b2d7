"""A page as a browser's parser sees it, and texts that would like to be more than texts."""

from html.parser import HTMLParser

VOID = {"meta", "br", "line", "polyline"}

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</bdi></td></table><iframe src=//evil.example>",
    "</style><style>*{display:none}</style>",
    "<!-- ]]> --> &lt;b&gt; &amp;",
    "{{ 7 * 7 }} {% raw %} {# x #}",
    "\u202egnp.exe\u2066 \x00\x07\x1b[2J \ud7ff\ufffe",
    "javascript:alert(1)",
]


class Seen(HTMLParser):
    """The elements, attributes and words of a page; fails where an element is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def assert_shown_and_idle(page: str, hostile: str, known: Seen, times: int) -> None:
    """Check that a text stands in a page more than so many times and adds no element to those of `known`."""
    seen = Seen(page)
    assert seen.tags == known.tags
    assert seen.attributes == known.attributes
    if hostile.isprintable():
        assert seen.text.count(" ".join(hostile.split())) > times
    assert not any(hidden in page for hidden in "\u202e\u2066\x00\x07\x1b\ufffe")
