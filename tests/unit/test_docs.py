"""What the docs name is there: files of the project, and targets of the Makefile."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import PROJECT

PAGES = [*PROJECT.glob("docs/*.md"), *PROJECT.glob("*.md"), PROJECT / "benchmarks" / "README.md"]
FILE = re.compile(r"\b(?:stages|flows|tests|benchmarks|docs|recipes|automations)/[\w/.-]*\.(?:py|md|yaml|j2|conf)\b")

TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
ADVISED = re.compile(r"(?:^|[`:;&] ?|\b(?:then|run) )make ([a-z-]+)")
IN_VENV = re.compile(r"(?<!\.venv/bin/)\b(?:dvc|pip|prefect) (?:repro|checkout|pull|push|fetch|exp|install|server)\b")
ENGLISH = {"a", "both", "it", "new", "room", "the"}


def texts(file: Path) -> Iterator[str]:
    """Yield the texts of a program, apart from its docstrings, with `…` where values go."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.value


def test_commands_that_a_program_advises_can_be_typed_as_they_stand() -> None:
    for file in [*PROJECT.glob("stages/**/*.py"), *PROJECT.glob("flows/**/*.py")]:
        for text in texts(file):
            assert not set(ADVISED.findall(text)) - TARGETS - ENGLISH, (file, text)
            assert not IN_VENV.search(text), (file, text)  # README asks nobody to have .venv/bin in PATH for `make`


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_and_targets_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = {name for name in FILE.findall(text) if not (PROJECT / name).exists()}
    assert not missing | (set(re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE)) - TARGETS)
