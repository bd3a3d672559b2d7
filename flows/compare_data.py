"""`python -m flows.compare_data [BASE [HEAD]]`: how the clean data of two Git revisions differ.

BASE is HEAD unless named; without a second one it is compared with the files in this folder. Older data come from DVC's
cache or remote; nothing is checked out.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.markdown import Markdown

from flows.command import exit_status
from flows.reporting.markdown import sentence, table
from flows.repository.git import commit_at
from flows.reviewing.data_changes import Listing, Version, data_changes, read_version
from stages.common.errors import AttuneError

WORKSPACE = "workspace"


def main(arguments: list[str] | None = None) -> int:
    """Print the differences, and write them to a file if asked."""
    description = "How two versions of the data differ."
    parser = argparse.ArgumentParser(prog="python -m flows.compare_data", description=description)
    parser.add_argument("base", nargs="?", default="HEAD", help="a Git revision (default: HEAD)")
    parser.add_argument("head", nargs="?", default=WORKSPACE, help="a Git revision (default: the files in this folder)")
    parser.add_argument("--examples", type=int, default=5, metavar="N", help="rows listed of each change (default: 5)")
    parser.add_argument("--texts", action="store_true", help="show the beginning of their texts, unmasked")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to a file, too")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _compare(options), "interrupted; nothing was changed")


def _compare(options: argparse.Namespace) -> None:
    names = (options.base, options.head)
    base, head = (read_version(name, _in_workspace if name == WORKSPACE else _at_revision(name)) for name in names)
    listings = data_changes(base, head, options.examples, texts=options.texts)
    text = _markdown(base, head, listings)
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(text, encoding="utf-8")
    Console(highlight=False).print(Markdown(text))


def _markdown(base: Version, head: Version, listings: list[Listing]) -> str:
    parts = [
        f"# Data: {sentence(base.name)} → {sentence(head.name)}",
        *([] if listings else ["They hold the same data."]),
    ]
    for listing in listings:
        parts.append(f"## {sentence(listing.title)}")
        if listing.rows:
            columns, *rows = ([sentence(cell) for cell in line] for line in (listing.columns, *listing.rows))
            parts.append(table(columns, "l" * len(columns), rows))
    return "\n\n".join(parts) + "\n"


def _in_workspace(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        fix = "make it with `make run`, or bring it back with `dvc checkout`"
        raise AttuneError(f"{path} is missing", fix) from None


def _at_revision(revision: str) -> Callable[[str], BinaryIO]:
    """Return a function that opens the files DVC keeps of a commit."""
    commit = commit_at(Path(), revision)  # DVC takes trees, files and options, too, and breaks on them
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    try:
        files = DVCFileSystem(rev=commit)
        files.ls("")  # only now is the revision looked up
    except (DvcException, SCMError) as error:
        raise AttuneError(f"DVC cannot read {revision} here: {error}", "run this from the project's folder") from None

    def opened(path: str) -> BinaryIO:
        if not files.exists(path):
            raise AttuneError(f"{revision} has no {path}", "take a revision whose dvc.lock lists it")
        try:
            return files.open(path, "rb")
        except (FileNotFoundError, DvcException):
            fix = "where it was made: dvc push; then here: dvc fetch --all-commits. "
            fix += "Or check the revision out in another folder and run the pipeline there"
            raise AttuneError(f"{path} of {revision} is neither in DVC's cache nor in its remote", fix) from None

    return opened


if __name__ == "__main__":
    sys.exit(main())
