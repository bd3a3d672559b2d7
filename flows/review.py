"""`python -m flows.review --base origin/main --head HEAD`: what changed, what it did, and whether it can be rebuilt.

It works in git worktrees of its own, beside the checkout in which nothing changes. It writes `review.md`, for a comment
on a pull request, and `review.html`, with everything in one file.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.command import exit_status
from flows.reviewing.changed.table_changes import mask_of
from flows.reviewing.findings import Review
from flows.reviewing.pages.comment import comment
from flows.reviewing.pages.page import page
from flows.reviewing.pages.verdict import Verdict, verdict_of
from flows.reviewing.rounds import Request, review
from stages.common.errors import AttuneError
from stages.common.redact import redacted
from stages.common.shown import visible
from stages.common.stage import LOGS

NOT_REPRODUCED = 3
MARKDOWN, HTML = "review.md", "review.html"
STATUS = f"""exit status:
  0  reproduced: the same bytes, or equal within the tolerance; with --no-rebuild: nothing speaks against it
  {NOT_REPRODUCED}  not reproduced: an out differs, a stage failed, or dvc.lock is missing, of other code, params
     or data, or not what the files are
  1  there is no such commit, or it is no project that can be read
  2  wrong options"""


@dataclass(frozen=True)
class Written:
    """A review, what it comes to, and the files that tell of it."""

    review: Review
    verdict: Verdict
    markdown: Path
    html: Path


def carry_out(home: Path, request: Request, output: Path, log: Callable[[str], None]) -> Written:
    """Review a commit, and write `review.md` and `review.html`.

    Args:
        home: the checkout, in which nothing changes.
        request: what to do.
        output: folder of both files, made if need be.
        log: gets lines of progress, and what a person should know.

    Raises:
        AttuneError: if a commit is none, or the head is no project that can be read.
    """
    _prepare(output, request.logs)
    found = review(home, request, lambda line: log(visible(redacted(line))))  # names in it may be a stranger's
    told = verdict_of(found)
    mask = mask_of(found.head)
    return Written(
        found,
        told,
        _write(output / MARKDOWN, comment(found, told, mask)),
        _write(output / HTML, page(found, told, mask)),
    )


def _prepare(output: Path, logs: Path) -> None:
    """Make the folder, before a rebuild that takes hours.

    Raises:
        AttuneError: if nothing can be written there.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=output):
            pass
    except OSError as error:
        raise AttuneError(f"nothing can be written to {output}: {error.strerror}", "name another --output") from None
    for path, is_folder in ((output / MARKDOWN, False), (output / HTML, False), (logs, True)):
        if path.exists() and path.is_dir() != is_folder:
            raise AttuneError(f"{path} is in the way", "move it, or name another --output")


def _write(path: Path, text: str) -> Path:
    """Write a file whole or not at all."""
    with TemporaryDirectory(dir=path.parent, prefix=".review-") as beside:
        part = Path(beside) / path.name
        part.write_text(text, encoding="utf-8")
        return part.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Review a commit from the command line."""
    asked = _parser().parse_args(arguments)

    def work() -> int:
        request = Request(asked.base, asked.head, asked.rebuild, asked.venv, asked.keep, asked.output / "review")
        written = carry_out(Path.cwd(), request, asked.output, lambda line: print(line, flush=True))
        for line in (*written.verdict.headline, *written.verdict.risks):
            print(f"  {visible(line.text)}")
        print(f"  {written.markdown}  {written.html}")
        return 0 if written.review.rebuild.holds else NOT_REPRODUCED

    return exit_status(work, "interrupted; neither page was written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.review",
        description="What a commit changes, what that did, and whether it can be rebuilt: review.md and review.html.",
        epilog=STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--base",
        metavar="COMMIT",
        help="what to hold it against (default: origin/main, else main, else the one before)",
    )
    parser.add_argument("--head", metavar="COMMIT", default="HEAD", help="commit, tag or branch to review (HEAD)")
    parser.add_argument(
        "--rebuild",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the head's pipeline again from nothing, and hold every out against dvc.lock (default)",
    )
    parser.add_argument("--venv", action="store_true", help="do that with the versions of the head's constraints.txt")
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=LOGS, help="where both files go (logs)")
    parser.add_argument("--keep", action="store_true", help="leave the worktrees for a look")
    return parser


if __name__ == "__main__":
    sys.exit(main())
