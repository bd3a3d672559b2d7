"""What the docs name is there: files of the project, and targets of the Makefile."""

import re
from pathlib import Path

import pytest

from tests.projects import PROJECT

PAGES = [*PROJECT.glob("docs/*.md"), *PROJECT.glob("*.md"), PROJECT / "benchmarks" / "README.md"]
FILE = re.compile(r"\b(?:stages|flows|tests|benchmarks|docs|recipes|automations)/[\w/.-]*\.(?:py|md|yaml|j2|conf)\b")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_and_targets_that_a_page_names_are_there(page: Path) -> None:
    text, makefile = page.read_text(encoding="utf-8"), (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    missing = {name for name in FILE.findall(text) if not (PROJECT / name).exists()}
    assert not missing | (set(re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE)) - targets)
