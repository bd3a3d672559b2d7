"""`python -m flows.compare_data [BASE [HEAD]]`: how the clean data of two Git revisions differ.

BASE is HEAD unless named; without a second one it is compared with the files in this folder. Older data come from DVC's
cache or remote; nothing is checked out.
"""

import argparse
import sys
from pathlib import Path

from fsspec import filesystem
from rich.console import Console
from rich.markdown import Markdown

from flows.command import program
from flows.reporting.markdown import sentence, table
from flows.reviewing.data_changes import Version, data_changes, read_version
from stages.common.errors import AttuneError
from stages.common.git import commit_at

WORKSPACE = "workspace"


@program("interrupted; nothing was changed")
def main(arguments: list[str] | None = None) -> None:
    """Print the differences, and write them to a file if asked."""
    description = "How two versions of the data differ."
    parser = argparse.ArgumentParser(prog="python -m flows.compare_data", description=description)
    parser.add_argument("base", nargs="?", default="HEAD", help="a Git revision (default: HEAD)")
    parser.add_argument("head", nargs="?", default=WORKSPACE, help="a Git revision (default: the files in this folder)")
    parser.add_argument("--examples", type=int, default=5, metavar="N", help="rows listed of each change (default: 5)")
    parser.add_argument("--texts", action="store_true", help="show the beginning of their texts, unmasked")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to a file, too")
    options = parser.parse_args(arguments)
    base, head = _read(options.base), _read(options.head)
    listings = data_changes(base, head, options.examples, texts=options.texts)
    parts = [f"# Data: {sentence(base.name)} → {sentence(head.name)}"]
    for listing in listings:
        parts.append(f"## {sentence(listing.title)}")
        if listing.rows:
            columns, *rows = ([sentence(cell) for cell in line] for line in (listing.columns, *listing.rows))
            parts.append(table(columns, "l" * len(columns), rows))
    text = "\n\n".join(parts if listings else [*parts, "They hold the same data."]) + "\n"
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(text, encoding="utf-8")
    Console(highlight=False).print(Markdown(text))


def _read(name: str) -> Version:
    """Read the files of this folder, or those that DVC keeps of a commit."""
    if name == WORKSPACE:
        return read_version(name, filesystem("file"))
    commit = commit_at(Path(), name)  # DVC takes trees, files and options, too, and breaks on them
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    try:
        return read_version(name, DVCFileSystem(rev=commit))
    except (DvcException, SCMError) as error:
        raise AttuneError(f"DVC cannot read {name} here: {error}", "run this from the project's folder") from None


if __name__ == "__main__":
    sys.exit(main())
