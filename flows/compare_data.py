"""`python -m flows.compare_data [BASE [HEAD]]`: how the clean data of two Git revisions differ.

BASE is HEAD unless named; without a second one it is compared with the files in this folder. Older data come from DVC's
cache or remote; nothing is checked out.
"""

import argparse
import html
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.command import exit_status
from flows.data_changes import Listing, Version, data_changes
from flows.git import object_at
from stages.common.errors import AttuneError
from stages.common.schemas import SPLITS
from stages.common.shown import visible

WORKSPACE = "workspace"
WHOLE = 10  # a heading up to this length stays on one line: "relabelled"
REJECTED = ("data/raw/rejected.parquet", "data/clean/rejected.parquet")

Open = Callable[[str], BinaryIO]


def main(arguments: list[str] | None = None) -> int:
    """Print the differences, and write them to a file if asked."""
    asked = _parser().parse_args(arguments)
    return exit_status(lambda: _compare(asked), "interrupted; nothing was changed")


def _compare(asked: argparse.Namespace) -> None:
    base, head = read_version(asked.base), read_version(asked.head)
    listings = data_changes(base, head, asked.examples, texts=asked.texts)
    if asked.markdown:
        asked.markdown.parent.mkdir(parents=True, exist_ok=True)
        asked.markdown.write_text(markdown(base.name, head.name, listings), encoding="utf-8")
    console = Console(highlight=False)
    if not listings:
        console.print(Text(f"{base.name} and {head.name} hold the same data"))
    for listing in listings:
        _print(console, listing)


def read_version(revision: str) -> Version:
    """Read the clean splits and the rejected rows of a Git revision, or of the files in this folder.

    Raises:
        AttuneError: if there is no such revision, it has no such data, or the data are not in DVC's cache.
    """
    opened = _in_workspace if revision == WORKSPACE else _at_revision(revision)
    splits = [
        _read(opened, f"data/clean/{name}.parquet", ["id", "text", "label", "fold"]).with_columns(split=pl.lit(name))
        for name in SPLITS
    ]
    rejected = [_read(opened, path, ["id", "stage", "rule"]) for path in REJECTED]
    return Version(visible(revision), pl.concat(splits), pl.concat(rejected))


def markdown(base: str, head: str, listings: list[Listing]) -> str:
    """Return the differences as a Markdown page."""
    parts = [f"# Data: {_cell(base)} → {_cell(head)}", *(["No difference."] if not listings else [])]
    for listing in listings:
        lines = [listing.columns, ["---"] * len(listing.columns), *listing.rows]
        table = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
        parts.append(f"## {_cell(listing.title)}" + (f"\n\n{table}" if listing.rows else ""))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """Return a text that Markdown shows as it is: data can hold HTML, links and pictures."""
    escaped = html.escape(text, quote=False)
    return "".join(f"\\{character}" if character in r"\`*_[]()#!|~" else character for character in escaped)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.compare_data", description="How two versions of the data differ."
    )
    parser.add_argument("base", nargs="?", default="HEAD", help="a Git revision (default: HEAD)")
    parser.add_argument("head", nargs="?", default=WORKSPACE, help="a Git revision (default: the files in this folder)")
    parser.add_argument("--examples", type=int, default=5, metavar="N", help="rows listed of each change (default: 5)")
    parser.add_argument("--texts", action="store_true", help="show the beginning of their texts, unmasked")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to a file, too")
    return parser


def _read(opened: Open, path: str, columns: list[str]) -> pl.DataFrame:
    with opened(path) as file:
        try:
            table = pl.read_parquet(file)
            return table.select(name for name in columns if name != "fold" or name in table.columns)
        except pl.exceptions.PolarsError as error:
            raise AttuneError(f"{path} is no table of Attune's: {str(error).splitlines()[0]}") from None


def _in_workspace(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise AttuneError(
            f"{path} is missing", "make it with `make run`, or bring it back with `dvc checkout`"
        ) from None


def _at_revision(revision: str) -> Open:
    """Return a function that opens the files DVC keeps of a commit."""
    # DVC takes trees, files and options, too, and breaks on them.
    found = object_at(Path(), f"{revision}^{{commit}}")
    if not found or not revision:
        raise AttuneError(f"{revision!r} is no commit here", "`git log --oneline` lists them; HEAD~1 is the one before")
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.scm import SCMError

    try:
        files = DVCFileSystem(rev=found)
        files.ls("")  # only now is the revision looked up
    except NotDvcRepoError:
        raise AttuneError("this folder belongs to no DVC project", "run this from the project's folder") from None
    except SCMError as error:
        raise AttuneError(
            f"{revision!r} is no Git revision here: {error}", "`git log --oneline` lists them; HEAD~1 is the one before"
        ) from None
    except DvcException as error:
        raise AttuneError(f"DVC cannot read {revision}: {error}") from None

    def opened(path: str) -> BinaryIO:
        if not files.exists(path):
            raise AttuneError(f"{revision} has no {path}", "take a revision whose dvc.lock lists it")
        try:
            return files.open(path, "rb")
        except (FileNotFoundError, DvcException):
            raise AttuneError(
                f"{path} of {revision} is neither in DVC's cache nor in its remote",
                "where it was made: dvc push; then here: dvc fetch --all-commits. "
                "Or check the revision out in another folder and run the pipeline there",
            ) from None

    return opened


def _print(console: Console, listing: Listing) -> None:
    if not listing.rows:
        console.print(Text(listing.title), "\n")
        return
    table = Table(title=Text(listing.title), title_justify="left")
    for column in listing.columns:
        table.add_column(Text(column), overflow="fold", min_width=min(len(column), WHOLE))
    for row in listing.rows:
        table.add_row(*map(Text, row))
    console.print(table, "")


if __name__ == "__main__":
    sys.exit(main())
